"""Rows that pass a model at once: those of a whole batch until memory is short, then half as many."""

import warnings
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from statprune.errors import ShortOfMemoryError, StatpruneWarning, short_of_memory

T = TypeVar("T")


class Pace:
    """How many rows pass at once, None for all; shared by whatever passes the same model."""

    def __init__(self) -> None:
        self.most: int | None = None

    def halve(self, rows: int, what: str) -> None:
        """Memory was short for `rows` rows: half of them from now on, and a warning says so.

        Raises:
            ShortOfMemoryError: there was one.
        """
        if rows <= 1:
            raise ShortOfMemoryError(f"{what}: memory is short even for one row at a time.")
        self.most = rows // 2
        torch.cuda.empty_cache()  # nothing where there is no GPU
        warnings.warn(
            f"{what}: memory was short for {rows} rows at once; from here on {self.most} pass at a time.",
            StatpruneWarning,
            stacklevel=2,
        )


def in_halves(
    count: int, run: Callable[[slice], T], what: str, pace: Pace | None = None
) -> Iterator[tuple[slice, T]]:
    """What `run` makes of `count` rows, piece by piece and in order: one piece, unless memory is short.

    `what` names the place for warning and error.

    Raises:
        ShortOfMemoryError: memory is short for a single row.
    """
    pace = Pace() if pace is None else pace
    start = 0
    while start < count:
        rows = slice(start, min(count, start + (pace.most or count)))
        found = _tried(run, rows)
        if found is None:  # what the failed pass held is gone by now
            pace.halve(rows.stop - start, what)
            continue
        yield rows, found[0]
        start = rows.stop


def _tried(run: Callable[[slice], T], rows: slice) -> tuple[T] | None:
    try:
        return (run(rows),)
    except Exception as error:
        if not short_of_memory(error):
            raise
    return None
