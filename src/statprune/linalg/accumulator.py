"""What the four ways of seeing calibration data once, batch by batch, have in common."""

from __future__ import annotations

from typing import Protocol, Self

from torch import Tensor

from statprune.linalg.factor import Factor


class Accumulator(Protocol):
    """Takes rows of Z as they come and answers "factor me".

    `Gram`, `TallQR`, `GaussianSketch` and `CountSketch` are its implementations.  They differ in memory, in
    accuracy and in how they are summed over workers; what they answer differs by rounding (the first two) or
    by the error of the sketch (the last two).
    """

    @property
    def rows(self) -> int:
        """Rows of Z seen so far."""
        ...

    def update(self, Z: Tensor) -> None:
        """Take in the rows of Z (n, width)."""
        ...

    def merge(self, other: Self) -> None:
        """Take in everything `other` has seen, as if its rows had been given to `update`."""
        ...

    def factor(self, scale: Tensor | None = None, unit: int = 1) -> Factor:
        """Factor the rows seen so far, columns scaled by `scale` (width,), in units of `unit` columns."""
        ...
