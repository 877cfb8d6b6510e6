"""Values from process to process: what they are made of is pickled, their tensors go beside it."""

import io
import pickle
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

AT_ONCE = 2**28
"""Bytes in one message, at most."""

FIRST = 2**14
"""Bytes of a value's first message, which most values fit in."""

SMALL = 2**12
"""Bytes of a tensor that is pickled with the rest."""


class Channel:
    """Sends values between the processes of a group, and broadcasts them.

    Args:
        group: of torch.distributed; ranks are those of all processes.
        device: of tensors on a GPU, on the way; None sends all from the memory of the host.
    """

    def __init__(self, group: Any, device: torch.device | None) -> None:
        self.group, self._device = group, device

    def send(self, value: Any, to: int) -> None:
        """Send a value; returns when it is on its way."""
        for part in self._parts(value):
            for piece in torch.split(part, AT_ONCE):
                dist.send(piece, dst=to, group=self.group)
        self._wait()

    def receive(self, source: int) -> Any:
        """The value that `source` sends."""
        return self._assembled(lambda piece: dist.recv(piece, src=source, group=self.group))

    def broadcast(self, value: Any, owner: int) -> Any:
        """At all but the owner: the value that the owner gives."""
        if dist.get_rank() != owner:
            return self._assembled(lambda piece: dist.broadcast(piece, src=owner, group=self.group))
        for part in self._parts(value):
            for piece in torch.split(part, AT_ONCE):
                dist.broadcast(piece, src=owner, group=self.group)
        self._wait()
        return None

    def _parts(self, value: Any) -> list[Tensor]:
        """Bytes: a first message of FIRST, with the length of what is pickled; the rest; large tensors."""
        packed, tensors = _packed(value)
        packed = len(packed).to_bytes(8, "little") + packed
        first, rest = bytearray(packed[:FIRST].ljust(FIRST, b"\0")), bytearray(packed[FIRST:])
        here = [each if self._device is not None and each.is_cuda else each.cpu() for each in tensors]
        flat = [each.contiguous().reshape(-1).view(torch.uint8) for each in here]
        told = [torch.frombuffer(each, dtype=torch.uint8) for each in (first, rest) if each]
        return [*told, *flat]

    def _assembled(self, take: Any) -> Any:
        def filled(part: Tensor) -> Tensor:
            for piece in torch.split(part, AT_ONCE):
                take(piece)
            return part

        first = filled(torch.zeros(FIRST, dtype=torch.uint8)).numpy().tobytes()
        length = int.from_bytes(first[:8], "little") + 8
        rest = b""
        if length > FIRST:
            rest = filled(torch.zeros(length - FIRST, dtype=torch.uint8)).numpy().tobytes()
        packed = (first + rest)[8:length]
        found = _unpacked(packed, lambda shape, dtype, on_gpu: self._room(filled, shape, dtype, on_gpu))
        self._wait()
        return found

    def _room(self, filled: Any, shape: tuple[int, ...], dtype: torch.dtype, on_gpu: bool) -> Tensor:
        gpu = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
        way = gpu if self._device is not None else torch.device("cpu")
        made = torch.empty(shape, dtype=dtype, device=way)
        filled(made.view(-1).view(torch.uint8))
        return made.to(gpu)

    def _wait(self) -> None:
        """Until it has happened: calls to NCCL return before that."""
        if self._device is not None:
            torch.cuda.synchronize(self._device)


def _packed(value: Any) -> tuple[bytes, list[Tensor]]:
    """What is pickled, small tensors within; and the others."""
    buffer, tensors = io.BytesIO(), []

    class Pickler(pickle.Pickler):
        def persistent_id(self, each: Any) -> Any:
            if not isinstance(each, Tensor):
                return None
            small = None
            if each.numel() * each.element_size() <= SMALL:
                small = each.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
            else:
                tensors.append(each.detach())
            return tuple(each.shape), each.dtype, each.is_cuda, small

    Pickler(buffer).dump(value)
    return buffer.getvalue(), tensors


def _unpacked(packed: bytes, room: Any) -> Any:
    """The value; its large tensors come one after the other, as they were packed."""

    class Unpickler(pickle.Unpickler):
        def persistent_load(self, told: Any) -> Tensor:
            shape, dtype, on_gpu, small = told
            if small is None:
                tensor: Tensor = room(shape, dtype, on_gpu)
                return tensor
            made = torch.empty(shape, dtype=dtype)
            if small:
                made.view(-1).view(torch.uint8).copy_(torch.frombuffer(bytearray(small), dtype=torch.uint8))
            return made.cuda() if on_gpu else made

    return Unpickler(io.BytesIO(packed)).load()
