"""Ask the system to read what will be needed next while the present block is worked on.

The pages go to the system's cache, which gives them up where memory is short; this process takes none for
them. Nothing depends on it: where there is no such call, or the file is gone, nothing happens.
"""

import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

_LENGTH = 8  # bytes that say how long the header of a safetensors file is


def ask_for(path: Path, start: int = 0, length: int = 0) -> None:
    """`length` bytes of the file from `start` on will be read soon; 0: all that follow."""
    if not hasattr(os, "posix_fadvise"):
        return
    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(handle, start, length, os.POSIX_FADV_WILLNEED)
        finally:
            os.close(handle)


class ReadAhead:
    """Knows where in files the weights are that accelerate leaves on disk.

    Args:
        weights: its mapping from names to tensors.
    """

    def __init__(self, weights: Mapping[str, Any]) -> None:
        self._index: Mapping[str, Any] = getattr(weights, "index", {})
        self._folder = getattr(weights, "save_folder", None)
        self._places: dict[str, dict[str, tuple[int, int]]] = {}

    def ask(self, names: Iterable[str]) -> None:
        """The weights of these names will be read soon; what is not known is left out."""
        for name in names:
            told = self._index.get(name)
            if told is None:
                continue
            file = told.get("safetensors_file")
            if file is None:
                ask_for(Path(self._folder or "") / f"{name}.dat")
                continue
            if file not in self._places:
                self._places[file] = {}
                with suppress(OSError, ValueError):
                    self._places[file] = places_in(Path(file))
            place = self._places[file].get(told.get("weight_name", name))
            if place is not None:
                ask_for(Path(file), *place)


def places_in(path: Path) -> dict[str, tuple[int, int]]:
    """(first byte, bytes) of every tensor of a safetensors file, by name."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH), "little")
        header = json.loads(file.read(length))
    begin = _LENGTH + length
    return {
        name: (begin + told["data_offsets"][0], told["data_offsets"][1] - told["data_offsets"][0])
        for name, told in header.items()
        if name != "__metadata__"
    }
