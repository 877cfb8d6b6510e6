"""What will be needed next is read while the present block is worked on.

By a thread, into memory, where there is room for a second block. Else the system is asked to: the pages go to
its cache, which gives them up where memory is short, and this process takes none for them. Nothing depends on
that: where there is no such call, or the file is gone, nothing happens.
"""

import json
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor

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


class Reading:
    """Tensors that a thread reads, which ends when it has.

    Args:
        read: reads them.
    """

    def __init__(self, read: Callable[[], dict[str, Tensor]]) -> None:
        self._found: dict[str, Tensor] = {}
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(read,), name="statprune reads ahead")
        self._thread.start()

    def result(self) -> dict[str, Tensor]:
        """What was read, as soon as it is; whatever the reading raised is raised here."""
        self.wait()
        if self._error is not None:
            raise self._error
        return self._found

    def wait(self) -> None:
        """Return when the thread has ended."""
        self._thread.join()

    def _run(self, read: Callable[[], dict[str, Tensor]]) -> None:
        try:
            self._found = read()
        except BaseException as error:  # for whoever waits
            self._error = error


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
