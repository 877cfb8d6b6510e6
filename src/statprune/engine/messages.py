"""Values from process to process: what they are made of is pickled, their tensors go beside it."""

import io
import pickle
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

AT_ONCE = 2**28
"""Bytes in one message, at most."""


class Channel:
    """Sends values between the processes of a group, and broadcasts them.

    Args:
        group: of torch.distributed; ranks are those of all processes.
        device: of tensors on a GPU, on the way; None sends all from the memory of the host.
    """

    def __init__(self, group: Any, device: torch.device | None) -> None:
        self._group, self._device = group, device

    def send(self, value: Any, to: int) -> None:
        """Send a value; returns when it is on its way."""
        for part in self._parts(value):
            for piece in torch.split(part, AT_ONCE):
                dist.send(piece, dst=to, group=self._group)
        self._wait()

    def receive(self, source: int) -> Any:
        """The value that `source` sends."""
        return self._assembled(lambda piece: dist.recv(piece, src=source, group=self._group))

    def broadcast(self, value: Any, owner: int) -> Any:
        """At all but the owner: the value that the owner gives."""
        if dist.get_rank() != owner:
            return self._assembled(lambda piece: dist.broadcast(piece, src=owner, group=self._group))
        for part in self._parts(value):
            for piece in torch.split(part, AT_ONCE):
                dist.broadcast(piece, src=owner, group=self._group)
        self._wait()
        return None

    def _parts(self, value: Any) -> list[Tensor]:
        """Bytes: the length of what is pickled, that, and every tensor that has elements."""
        packed, tensors = _packed(value)
        length = torch.tensor([len(packed)]).view(torch.uint8)
        here = [each if self._device is not None and each.is_cuda else each.cpu() for each in tensors]
        flat = [each.contiguous().reshape(-1).view(torch.uint8) for each in here if each.numel()]
        return [length, torch.frombuffer(bytearray(packed), dtype=torch.uint8), *flat]

    def _assembled(self, take: Any) -> Any:
        def filled(part: Tensor) -> Tensor:
            for piece in torch.split(part, AT_ONCE):
                take(piece)
            return part

        length = int(filled(torch.zeros(8, dtype=torch.uint8)).view(torch.int64))
        packed = filled(torch.zeros(length, dtype=torch.uint8)).numpy().tobytes()
        found = _unpacked(packed, lambda shape, dtype, on_gpu: self._room(filled, shape, dtype, on_gpu))
        self._wait()
        return found

    def _room(self, filled: Any, shape: tuple[int, ...], dtype: torch.dtype, on_gpu: bool) -> Tensor:
        gpu = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
        way = gpu if self._device is not None else torch.device("cpu")
        made = torch.empty(shape, dtype=dtype, device=way)
        if made.numel():
            filled(made.view(-1).view(torch.uint8))
        return made.to(gpu)

    def _wait(self) -> None:
        """Until it has happened: calls to NCCL return before that."""
        if self._device is not None:
            torch.cuda.synchronize(self._device)


def _packed(value: Any) -> tuple[bytes, list[Tensor]]:
    buffer, tensors = io.BytesIO(), []

    class Pickler(pickle.Pickler):
        def persistent_id(self, each: Any) -> Any:
            if not isinstance(each, Tensor):
                return None
            tensors.append(each.detach())
            return tuple(each.shape), each.dtype, each.is_cuda

    Pickler(buffer).dump(value)
    return buffer.getvalue(), tensors


def _unpacked(packed: bytes, room: Any) -> Any:
    """The value; its tensors come one after the other, as they were packed."""

    class Unpickler(pickle.Unpickler):
        def persistent_load(self, told: Any) -> Tensor:
            tensor: Tensor = room(*told)
            return tensor

    return Unpickler(io.BytesIO(packed)).load()
