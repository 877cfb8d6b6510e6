"""What modules read and return while a block runs: given to readers, each row once."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from statprune.anatomy.producers import module_at
from statprune.calibration.routing import hidden_of, read_by, together
from statprune.errors import ShortOfMemoryError, short_of_memory

Reader = Callable[[Any], None]
"""Takes what a module reads, or returns, for one batch, (tokens, columns), padding removed; of experts what
they read is a `Routed`."""


class Once:
    """Gives every reader each row of a batch once, though rows pass again where memory was short.

    With `whole`, all rows at the end, by `hand_over`.
    """

    def __init__(self, *, whole: bool) -> None:
        self._whole = whole
        self._rows = slice(0, 0)
        self._given: dict[str, int] = {}
        self._before: dict[str, int] = {}
        self._gathered: dict[str, tuple[Reader, list[Any]]] = {}

    def passing(self, rows: slice) -> None:
        """These rows pass now, in order; some of them may have before."""
        self._rows, self._before = rows, dict(self._given)

    def reader(self, name: str, reader: Reader) -> Reader:
        """What gives `reader` the rows that pass, but for those it was given before."""

        def read(Z: Any) -> None:
            if self._before.get(name, 0) >= self._rows.stop:
                return
            if self._whole:
                self._gathered.setdefault(name, (reader, []))[1].append(Z)
            else:
                _give(reader, [Z])
            self._given[name] = self._rows.stop

        return read

    def hand_over(self) -> None:
        """Give readers what was gathered for them."""
        for reader, pieces in self._gathered.values():
            _give(reader, pieces)


def _give(reader: Reader, pieces: list[Any]) -> None:
    """All pieces as one; the list is empty then: both would lie in memory side by side."""
    tokens = sum(len(hidden_of(piece)) for piece in pieces)
    try:
        Z = together(pieces)
        pieces.clear()
        reader(Z)
    except Exception as error:
        if not short_of_memory(error):
            raise
        # A sum may have taken in a part: nothing that could be done again.
        raise ShortOfMemoryError(f"memory is short for what is summed of {tokens} tokens: {error}") from error


@contextmanager
def reading(
    block: nn.Module,
    readers: Mapping[str, Reader],
    real: Tensor,
    writers: Mapping[str, Reader] = MappingProxyType({}),
    *,
    borrowed: bool = False,
) -> Iterator[None]:
    """Give `readers` what modules at their paths in `block` read, and `writers` what those return.

    `real` (batch, length) bool tells tokens from padding.
    """
    with ExitStack() as stack:
        for path, reader in readers.items():

            def hook(_: nn.Module, inputs: tuple[Tensor, ...], reader: Reader = reader) -> None:
                reader(read_by(inputs, real, borrowed=borrowed))

            stack.callback(module_at(block, path).register_forward_pre_hook(hook).remove)
        for path, writer in writers.items():

            def after(_: nn.Module, __: Any, output: Tensor, writer: Reader = writer) -> None:
                writer(real_rows(output, real))

            stack.callback(module_at(block, path).register_forward_hook(after).remove)
        yield


def real_rows(Z: Tensor, real: Tensor) -> Tensor:
    """The rows of Z (batch, length, columns) that are tokens; `real` (batch, length) bool tells them."""
    return Z.reshape(-1, Z.shape[-1])[real.reshape(-1)]
