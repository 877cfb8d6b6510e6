"""What a run tells while it goes on: facts, without a clock.

Whoever listens may print them, or tell from them how much is left (statprune/time_left.py).
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Protocol

from statprune.budget.curves import Curves


@dataclass(frozen=True)
class Work:
    """An amount of work, as far as it can be told beforehand.

    Attributes:
        products: multiply-adds of activations with weights or with each other; they grow with the tokens.
        algebra: multiply-adds in float64, most of them of factorisations and solves.
        elements: numbers read or written by operations that do little with each.
        calls: operations, however small, one after the other.
        transfer: bytes written to disk, and read again.
    """

    products: float = 0.0
    algebra: float = 0.0
    elements: float = 0.0
    calls: float = 0.0
    transfer: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(*(mine + its for mine, its in zip(astuple(self), astuple(other), strict=True)))

    def times(self, factor: float) -> "Work":
        """So many times as much."""
        return Work(*(factor * each for each in astuple(self)))


@dataclass(frozen=True)
class Stage:
    """A stage that lies ahead: its name, and the work of each of its blocks."""

    name: str
    work: tuple[Work, ...]


@dataclass(frozen=True)
class Facts:
    """What is known besides the place.

    Attributes:
        site: the site that was narrowed last, if there was one.
        error: its relative error, ||(Z - Z_kept T) W^T||_F / ||Z W^T||_F.
        ahead: the stages to come, in order; None where nothing new is known about them.
        device: where the model computes, such as "cpu" or "cuda:0"; None where that has been said.
        recalled: whether this block had been done by an earlier run, so that its time tells nothing.
        curves: error curves of the sites measured so far (method stat).
        trial: which of several models is tried, in words; None where there is one.
    """

    site: str | None = None
    error: float | None = None
    ahead: Sequence[Stage] | None = None
    device: str | None = None
    recalled: bool = False
    curves: Curves | None = None
    trial: str | None = None


NOTHING = Facts()


class Progress(Protocol):
    """Called after every block of a stage."""

    def __call__(self, stage: str, done: int, blocks: int, facts: Facts = NOTHING, /) -> None:
        """`done` of the `blocks` of `stage` lie behind."""


def no_progress(stage: str, done: int, blocks: int, facts: Facts = NOTHING, /) -> None:
    """Show nothing."""
