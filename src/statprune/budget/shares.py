"""Which share to try next: bisection on a grid, begun where a prediction says.

What is looked for lies between a share that fails and one that passes. Nothing is taken to be monotone: what
is found has passed, and the next smaller share that was tried has not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

STEPS = 50
"""Shares of the grid: 0.02, 0.04 ... 1."""


def grid(least: float) -> list[float]:
    """The shares of the grid from `least` on and below 1, ascending."""
    first = max(1, ceil(least * STEPS - 1e-9))
    return [step / STEPS for step in range(first, STEPS)]


@dataclass
class Bracket:
    """Shares, ascending, by position: what lies at `failed` or below fails, at `passed` or above passes.

    At first neither is known: `failed` lies before the first, `passed` behind the last.
    """

    shares: Sequence[float]
    failed: int
    passed: int

    @staticmethod
    def around(shares: Sequence[float]) -> "Bracket":
        """Nothing is known of the shares."""
        return Bracket(shares, -1, len(shares))

    @property
    def open(self) -> bool:
        """Whether a share is left to try."""
        return self.passed - self.failed > 1

    def next(self, guess: float | None = None) -> int:
        """The position of the share to try: that nearest to `guess` among those left, or the middle one."""
        left = range(self.failed + 1, self.passed)
        if guess is None:
            return left[(len(left) - 1) // 2]
        return min(left, key=lambda position: abs(self.shares[position] - guess))

    def note(self, position: int, *, passes: bool) -> None:
        """Note what was found at a position."""
        if passes:
            self.passed = position
        else:
            self.failed = position

    def most(self) -> int:
        """Trials that bisection still takes, at most."""
        return max(0, self.passed - self.failed - 1).bit_length()
