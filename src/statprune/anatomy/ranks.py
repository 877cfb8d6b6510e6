"""The processes that share a run, seen from one of them: each walks a part of the calibration data.

What each has summed up is merged; what has to be decided is decided by one of them, its owner, and handed to
all others, so that the model becomes the same in every process, bit for bit.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, Self, TypeVar

from statprune.anatomy.shelf import Room, Shelf, State

T = TypeVar("T")


class Mergeable(Protocol):
    """A sum over rows."""

    def merge(self, other: Self, /) -> None:
        """Take in everything that `other` has seen."""
        ...


M = TypeVar("M", bound=Mergeable)


class Ranks(Protocol):
    """A group of processes, each with a number, its rank. All call the same methods in the same order."""

    @property
    def rank(self) -> int:
        """The number of this process, from 0."""
        ...

    @property
    def size(self) -> int:
        """How many processes there are."""
        ...

    @property
    def local(self) -> int:
        """The number of this process among those of its machine: of the GPU that it takes."""
        ...

    @property
    def here(self) -> int:
        """How many processes there are on its machine."""
        ...

    def same(self, value: T | None, owner: int = 0) -> T:
        """What the owner gave, everywhere; what others give is not looked at."""
        ...

    def collected(self, value: T, owner: int = 0) -> Iterator[T]:
        """At the owner what each gave, in the order of ranks, one at a time; elsewhere nothing."""
        ...


class Alone:
    """One process."""

    rank, size, local, here = 0, 1, 0, 1

    def same(self, value: T | None, owner: int = 0) -> T:
        """It."""
        return value  # type: ignore[return-value]

    def collected(self, value: T, owner: int = 0) -> Iterator[T]:
        """It alone."""
        yield value


ALONE = Alone()


def merged(ranks: Ranks, total: M, owner: int = 0) -> M | None:
    """At the owner the sum over all ranks, added up in their order; elsewhere None."""
    whole: M | None = None
    for each in ranks.collected(total, owner):
        if whole is None:
            whole = each
        else:
            whole.merge(each)
    return whole


def from_each(ranks: Ranks, value: T) -> list[T]:
    """What each gave, in the order of ranks, everywhere."""
    return [ranks.same(value if owner == ranks.rank else None, owner) for owner in range(ranks.size)]


def before(ranks: Ranks, number: int) -> tuple[int, int]:
    """Of a number that each has: the sum over the ranks in front of this one, and over all."""
    each = from_each(ranks, number)
    return sum(each[: ranks.rank]), sum(each)


def dealt(
    ranks: Ranks, count: int, totals: Callable[[int], Sequence[Mergeable]]
) -> Iterator[tuple[int, list[Any]]]:
    """Sums number 0 to `count`, merged, as they fall to this rank: (number, the sums of `totals(number)`).

    As many as there are ranks are merged before any is handed out, so that all work at once.
    """
    for start in range(0, count, ranks.size):
        own = None
        for number in range(start, min(start + ranks.size, count)):
            whole = [merged(ranks, each, number % ranks.size) for each in totals(number)]
            own = (number, whole) if number % ranks.size == ranks.rank else own
        if own is not None:
            yield own


def pooled(ranks: Ranks, found: Mapping[int, T]) -> dict[int, T]:
    """What each has found, by number, everywhere."""
    if ranks.size == 1:
        return dict(found)
    return {number: value for each in from_each(ranks, found) for number, value in each.items()}


class Followed:
    """A shelf whose states are read and written by the first rank alone; blocks are each one's own."""

    def __init__(self, own: Shelf, ranks: Ranks) -> None:
        self._own, self._ranks = own, ranks

    @property
    def lends(self) -> bool:
        """Whether blocks have weights only while they are taken."""
        return self._own.lends

    def taken(self, index: int) -> Any:
        """Block `index` with its weights at hand, for a while."""
        return self._own.taken(index)

    def room(self) -> Room:
        """An empty list for hidden states."""
        return self._own.room()

    def earlier(self, stage: str, index: int) -> State | None:
        """What the first rank finds."""
        first = self._ranks.rank == 0
        return self._ranks.same(self._own.earlier(stage, index) if first else None)

    def note(self, stage: str, index: int, state: State) -> None:
        """Keep `state` at the first rank."""
        if self._ranks.rank == 0:
            self._own.note(stage, index, state)
