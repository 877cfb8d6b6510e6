"""A model whose blocks stay on disk: their weights are read when they are taken, and dropped afterwards.

transformers opens the checkpoint, with all its checks and renamings, and accelerate reads single weights of
it; what transformers would convert (the experts of some mixtures) it writes to a scratch folder once.
"""

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from statprune.anatomy.lookup import Anatomy, anatomy_of
from statprune.anatomy.shelf import InMemory, Room
from statprune.anatomy.spilled import Spilled
from statprune.checkpoint.read_ahead import ReadAhead, Reading
from statprune.errors import InputError
from statprune.heap import give_back


def require_accelerate() -> None:
    """Raise InputError if the library that reads single weights is not installed."""
    if find_spec("accelerate") is None:
        raise InputError(
            "offload needs the library accelerate. Install it with `pip install 'statprune[offload]'`."
        )


def names_of_blocks(model: PreTrainedModel, anatomy: Anatomy) -> list[str]:
    """What the model calls its blocks, in order."""
    names = {id(module): name for name, module in model.named_modules()}
    return [names[id(block)] for block in anatomy.blocks]


class Lender:
    """Lends the weights of blocks, one block at a time.

    Attributes:
        ahead: whether the next block is read while one is lent, which takes room for a second one; else the
            system alone is asked to.
    """

    def __init__(self, model: PreTrainedModel, weights: Mapping[str, Tensor], device: torch.device) -> None:
        anatomy = anatomy_of(model)
        self._blocks = anatomy.blocks
        self._prefixes = [f"{name}." for name in names_of_blocks(model, anatomy)]
        self._weights, self._device = weights, device
        self._asking = ReadAhead(weights)
        self._taken: set[int] = set()
        self.ahead = False
        self._next: tuple[int, Reading] | None = None

    @contextmanager
    def taken(self, index: int, instead: Mapping[str, Tensor] | None = None) -> Iterator[None]:
        """Block `index` with its weights, or with `instead`, for a while; then shapes alone are left."""
        if index in self._taken:  # by whoever is around
            yield
            return
        block = self._blocks[index]
        self._fill(index, instead)
        self._taken.add(index)
        try:
            if instead is None and index + 1 < len(self._blocks):
                self._begin(index + 1)
            yield
        except BaseException:
            self._forget()
            raise
        finally:
            self._taken.remove(index)
            for name, parameter in list(block.named_parameters()):
                _put(block, name, torch.empty_like(parameter, device="meta"))
            give_back()  # in pieces it would add up, block by block

    def _fill(self, index: int, instead: Mapping[str, Tensor] | None) -> None:
        found = self._read_before(index) if instead is None else instead
        for name in self._names(index):
            _put(self._blocks[index], name, found[name].to(self._device, copy=instead is not None))

    def _names(self, index: int) -> list[str]:
        return [name for name, _ in self._blocks[index].named_parameters()]

    def _read(self, index: int) -> dict[str, Tensor]:
        # Copies: what the library hands out are views of files, which are closed again.
        prefix = self._prefixes[index]
        return {name: self._weights[prefix + name].clone() for name in self._names(index)}

    def _begin(self, index: int) -> None:
        """Have block `index` read while another one is lent."""
        if self.ahead:
            self._next = (index, Reading(lambda: self._read(index)))
        else:
            self._asking.ask(f"{self._prefixes[index]}{name}" for name in self._names(index))

    def _read_before(self, index: int) -> dict[str, Tensor]:
        """The weights of block `index`: those that were read meanwhile, or now."""
        if self._next is None or self._next[0] != index:
            self._forget()
            return self._read(index)
        (_, reading), self._next = self._next, None
        return reading.result()

    def _forget(self) -> None:
        """Wait until nothing is being read any more, and drop what was."""
        if self._next is not None:
            (_, reading), self._next = self._next, None
            reading.wait()


class Lent(InMemory):
    """A shelf that lends blocks, and keeps nothing; hidden states lie in files of the folder `streams`."""

    lends = True

    def __init__(self, lender: Lender, streams: Path | None = None) -> None:
        self._lender, self._streams = lender, streams

    def room(self) -> Room:
        """In memory, or in files."""
        return [] if self._streams is None else Spilled(self._streams)

    def taken(self, index: int) -> Any:
        """Block `index` with the checkpoint's weights."""
        return self._lender.taken(index)


def places_of(skeleton: PreTrainedModel, anatomy: Anatomy, device: str) -> dict[str, str]:
    """Where the parts of a model go, as transformers takes it: blocks on disk, all else on `device`."""
    blocks = {id(block) for block in anatomy.blocks}
    places: dict[str, str] = {}

    def place(module: nn.Module, name: str) -> None:
        if id(module) in blocks:
            places[name] = "disk"
        elif any(id(inner) in blocks for inner in module.modules()):
            own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
            places.update({f"{name}.{tensor}".lstrip("."): device for tensor, _ in own})
            for child, inner in module.named_children():
                place(inner, f"{name}.{child}".lstrip("."))
        else:
            places[name] = device

    place(skeleton, "")
    return places


def lender_of(model: PreTrainedModel, device: str) -> Lender:
    """A lender of what transformers has left on disk, instead of accelerate's own way to run such a model."""
    from accelerate.hooks import remove_hook_from_module  # noqa: PLC0415 - an optional library

    hooks = [getattr(module, "_hf_hook", None) for module in model.modules()]
    maps = [_weights_of(hook) for hook in hooks if hook is not None]
    weights = next(each for each in maps if each is not None)
    remove_hook_from_module(model, recurse=True)
    del model.hf_device_map
    return Lender(model, weights, torch.device(device))


@contextmanager
def without_warnings_of_accelerate() -> Iterator[None]:
    """It warns of names of tensors, which it then places all the same, and of what was asked for."""
    logger = logging.getLogger("accelerate.big_modeling")
    before = logger.level
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The following device_map keys do not match")
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(before)


def _weights_of(hook: Any) -> Mapping[str, Tensor] | None:
    for each in getattr(hook, "hooks", [hook]):
        found = getattr(each, "weights_map", None)
        if found is not None:
            dataset: Mapping[str, Tensor] = getattr(found, "dataset", found)
            return dataset
    return None


def _put(block: nn.Module, name: str, value: Tensor) -> None:
    path, _, own = name.rpartition(".")
    module = block.get_submodule(path)
    module._parameters[own] = nn.Parameter(value, requires_grad=False)
