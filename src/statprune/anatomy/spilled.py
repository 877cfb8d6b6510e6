"""A list of tensors that lies in memory-mapped files: only what is being read is in memory."""

import os
import weakref
from collections.abc import Iterable, MutableSequence
from pathlib import Path
from tempfile import mkstemp
from typing import Any

import torch
from torch import Tensor

BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""By bytes: the whole numbers that the bits of a tensor are read as."""


class _Entry:
    """One tensor in a file of its own, which goes when nobody refers to it any more."""

    def __init__(self, value: Tensor, folder: Path) -> None:
        self.shape, self.dtype, self.device = value.shape, value.dtype, value.device
        handle, self.path = mkstemp(dir=folder)
        with os.fdopen(handle, "wb") as file:
            file.write(value.detach().cpu().contiguous().view(BITS[value.element_size()]).numpy().data)
        weakref.finalize(self, _remove, self.path)

    def value(self) -> Tensor:
        """The tensor, on its device; on the CPU, pages are read as they are touched."""
        count = self.shape.numel()
        if count == 0:
            return torch.empty(self.shape, dtype=self.dtype, device=self.device)
        mapped = torch.from_file(self.path, shared=False, size=count, dtype=self.dtype)
        return mapped.reshape(self.shape).to(self.device)


def _remove(path: str) -> None:
    Path(path).unlink(missing_ok=True)


class Spilled(MutableSequence[Tensor]):
    """Holds tensors like a list; a copy shares their files, and what is put into one is not in the other."""

    def __init__(self, folder: Path, values: Iterable[Tensor] = ()) -> None:
        self._folder = folder
        self._entries = [_Entry(value, folder) for value in values]

    def copy(self) -> "Spilled":
        """Another list of the same tensors."""
        made = Spilled(self._folder)
        made._entries = list(self._entries)
        return made

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [each.value() for each in self._entries[index]]
        return self._entries[index].value()

    def __setitem__(self, index: Any, value: Any) -> None:
        self._entries[index] = _Entry(value, self._folder)

    def __delitem__(self, index: Any) -> None:
        del self._entries[index]

    def __len__(self) -> int:
        return len(self._entries)

    def insert(self, index: int, value: Tensor) -> None:
        """Put `value` in front of place `index`."""
        self._entries.insert(index, _Entry(value, self._folder))
