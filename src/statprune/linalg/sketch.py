"""Random projections of Z to few rows: S^T Z with E[S S^T] = I, S (tokens, rows).

(S^T Z)^T (S^T Z) is Z^T Z on average, and each entry is off by about ||Z_i|| ||Z_j|| sqrt(2 / rows): the
relative error of Gram entries is O(1 / sqrt(rows)), whatever the number of tokens.  Fewest operations,
approximate, and repeatable: every draw comes from the generator given, one token after the other, so the
result does not depend on how rows are batched.

Sources: Halko, Martinsson & Tropp 2011, SIAM Review 53(2), section 4 (Gaussian); Clarkson & Woodruff 2013,
STOC, section 2 (CountSketch); STAT, Flynn et al. 2024, arXiv 2406.00061 (100 rows a sequence in its
release).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

import torch
from torch import Tensor

from statprune.linalg.checks import require_width
from statprune.linalg.factor import Factor
from statprune.linalg.interpolative import by_pivoted_qr

_TOKENS = 256  # drawn for together, always: torch draws other numbers for other shapes


class _Sketch(ABC):
    """What both sketches share: the sum, its bookkeeping, and draws that do not depend on batches."""

    def __init__(
        self,
        width: int,
        rows: int,
        *,
        generator: torch.Generator,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        if generator.device.type != "cpu":
            raise ValueError(
                f"generator is on {generator.device}; pass a CPU generator: draws must not depend on it."
            )
        if rows < 1:
            raise ValueError(f"a sketch of {rows} rows holds nothing; pass at least 1.")
        self._sketch = torch.zeros(rows, width, device=device, dtype=dtype)
        self._generator = generator
        self._drawn: Tensor | None = None
        self._rows = 0
        self._skipped = 0

    @property
    def rows(self) -> int:
        """Rows of Z seen so far (not those of the sketch)."""
        return self._rows

    @property
    def matrix(self) -> Tensor:
        """S^T Z, (rows of the sketch, width), a copy."""
        return self._sketch.clone()

    def update(
        self,
        Z: Tensor,  # (n, width)
    ) -> None:
        """Take in the rows of Z.

        Raises:
            TypeError, ValueError: Z is not (n, width) of floating-point numbers.
            NonFiniteError: Z holds NaN or infinity; nothing is taken in.
        """
        require_width(Z, self._sketch.shape[1], "Z")
        start = 0
        while start < Z.shape[0]:
            used = (self._skipped + self._rows) % _TOKENS
            if used == 0 or self._drawn is None:
                self._drawn = self._draw()
            rows = Z[start : start + _TOKENS - used].to(self._sketch)
            self._add(self._drawn[used : used + rows.shape[0]].to(self._sketch.device), rows)
            start += rows.shape[0]
            self._rows += rows.shape[0]

    def skip(self, rows: int) -> None:
        """Draw for `rows` tokens that another sketch takes in, with the same seed; to be merged with this.

        Raises:
            ValueError: some rows were taken in already.
        """
        if self._rows or self._skipped:
            raise ValueError(f"{self._rows + self._skipped} rows were drawn for; skip before the first.")
        for _ in range(-(-rows // _TOKENS)):
            self._drawn = self._draw()
        self._skipped = rows

    def merge(self, other: Self) -> None:
        """Add what `other` has seen, of other rows; its generator was another, seeded otherwise, or skipped.

        Raises:
            ValueError: the shapes differ.
        """
        if self._sketch.shape != other._sketch.shape:
            raise ValueError(
                f"cannot merge a sketch of shape {tuple(other._sketch.shape)} "
                f"into one of {tuple(self._sketch.shape)}."
            )
        self._sketch.add_(other._sketch.to(self._sketch))
        self._rows += other._rows

    def factor(self, scale: Tensor | None = None, unit: int = 1) -> Factor:
        """Pivoted QR of (S^T Z) D, of rank at most the rows of the sketch; see `by_pivoted_qr`."""
        return by_pivoted_qr(self._sketch, scale=scale, unit=unit)

    @abstractmethod
    def _draw(self) -> Tensor:
        """Draws for the next `_TOKENS` tokens, one row each."""

    @abstractmethod
    def _add(self, drawn: Tensor, rows: Tensor) -> None:
        """Add the sketch of `rows` (n, width) under their draws."""


class GaussianSketch(_Sketch):
    """S of independent normal entries of variance 1 / rows; an `Accumulator`.

    An update of n tokens costs 2 n * rows * width FLOP, and n * rows draws.

    Args:
        width: columns of Z.
        rows: rows of the sketch.
        generator: on the CPU; the only source of randomness.
        device: where the sketch lives; rows are moved there.
        dtype: of the sketch, float32 or float64.
    """

    def _draw(self) -> Tensor:
        # float32 for either dtype, so that both see the same S.
        shape, own = (_TOKENS, self._sketch.shape[0]), self._generator
        return torch.randn(shape, generator=own, dtype=torch.float32, device=own.device)

    def _add(self, drawn: Tensor, rows: Tensor) -> None:
        self._sketch.addmm_(drawn.to(rows).T, rows, alpha=self._sketch.shape[0] ** -0.5)


class CountSketch(_Sketch):
    """S with one entry of random sign a row: each token goes to one bucket; an `Accumulator`.

    An update of n tokens costs n * width additions and 2 n draws.

    Args:
        width: columns of Z.
        rows: rows of the sketch, the buckets.
        generator: on the CPU; the only source of randomness.
        device: where the sketch lives; rows are moved there.
        dtype: of the sketch, float32 or float64.
    """

    def _draw(self) -> Tensor:
        # One number gives bucket and sign: (_TOKENS, 1), below 2 * rows.
        own = self._generator
        return torch.randint(2 * self._sketch.shape[0], (_TOKENS, 1), generator=own, device=own.device)

    def _add(self, drawn: Tensor, rows: Tensor) -> None:
        bucket, negative = drawn[:, 0] // 2, drawn % 2 == 1
        # index_put_ sorts before it adds on accelerators and so repeats itself; index_add_ does not.
        self._sketch.index_put_((bucket,), torch.where(negative, -rows, rows), accumulate=True)
