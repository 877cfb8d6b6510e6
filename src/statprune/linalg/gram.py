"""Gram matrices summed batch by batch: all that the factorisations need, in memory that does not grow.

G = Z^T Z and C = A^T B are sums over rows, so batches, workers and machines simply add up.  Squaring halves
the digits, so the sum is float64 unless asked otherwise.

Source: the identity behind pivoted Cholesky of the Gram matrix, see `pivoted_cholesky`.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from statprune.linalg.checks import require_each, require_width
from statprune.linalg.factor import Factor
from statprune.linalg.pivoted_cholesky import by_pivoted_cholesky
from statprune.linalg.row_weights import of_rows, weighted

_ROWS = 4096  # rows in one product: bounds both the cast copy and the rounding of a float32 product
_PANEL = 384  # columns in one product of the upper triangle

FEW_COLUMNS = 512
"""Fewer columns than that are summed in float64 where rows are few, too: it costs next to nothing."""


def moment_dtype(columns: int, dtype: torch.dtype, *, few: bool) -> torch.dtype:
    """In which dtype products for damped fits are formed, of rows of this `dtype`.

    float64 of `few` rows, if there are few columns or rows are in float64 themselves: then it makes no
    difference how they come in batches. Else float32.
    """
    return torch.float64 if few and (columns < FEW_COLUMNS or dtype == torch.float64) else torch.float32


class Gram:
    """Z^T Z of all rows seen, (width, width); an `Accumulator`.

    Memory width^2; an update of n rows costs n * width^2 FLOP (one triangle).  Rows may come in any floating
    dtype.

    Args:
        width: columns of Z.
        device: where the sum lives; rows are moved there.
        dtype: of the sum.
        product_dtype: of the products, if another one. float32 forms products of at most 4096 rows in float32
            and sums them in `dtype`: errors of about 1e-6 ||Z_i|| ||Z_j|| an entry, several times faster
            where float64 is slow. A product that overflows is formed in `dtype` instead.
    """

    def __init__(
        self,
        width: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float64,
        product_dtype: torch.dtype | None = None,
    ) -> None:
        self._product_dtype = product_dtype or dtype
        self._upper = torch.zeros(width, width, device=device, dtype=dtype)
        self._eps = torch.finfo(dtype).eps  # of the coarsest product in the sum
        self._rows = 0

    @property
    def rows(self) -> int:
        """Rows of Z seen so far."""
        return self._rows

    @property
    def matrix(self) -> Tensor:
        """G = Z^T Z, (width, width), a copy, symmetric to the last bit."""
        return _symmetric(self._upper.clone())

    def take(self) -> Tensor:
        """The same in the memory of the sum, of which nothing is left."""
        return _symmetric(self._upper)

    def update(
        self,
        Z: Tensor,  # (n, width)
        row_weights: Tensor | None = None,  # (n,) above 0
    ) -> None:
        """Add Z^T Z, or Z^T diag(row_weights) Z.

        Raises:
            TypeError, ValueError: Z is not (n, width) of floating-point numbers, or weights are not (n,).
            NonFiniteError: Z holds NaN or infinity; nothing is added.
        """
        width = self._upper.shape[0]
        require_width(Z, width, "Z")
        require_each(row_weights, Z)
        roots = None if row_weights is None else row_weights.sqrt()
        for rows in _chunks(Z, self._upper, self._product_dtype, roots):
            for start in range(0, width, _PANEL):
                stop = start + _PANEL
                _add_product(self._upper[start:stop, start:], rows[:, start:stop], rows[:, start:])
        self._eps = max(self._eps, torch.finfo(self._product_dtype).eps)
        self._rows += Z.shape[0]

    def merge(self, other: Gram) -> None:
        """Add what `other` has seen.

        Raises:
            ValueError: the widths differ.
        """
        _add(self._upper, other._upper)
        self._eps = max(self._eps, other._eps)
        self._rows += other._rows

    def add(self, matrix: Tensor) -> None:
        """Add a symmetric (width, width) matrix; it counts as no rows.

        Raises:
            ValueError: the shape is another one.
        """
        _add(self._upper, matrix)

    def factor(self, scale: Tensor | None = None, unit: int = 1) -> Factor:
        """Pivoted Cholesky of D G D; see `by_pivoted_cholesky`.

        After products coarser than the sum, squared pivots below 8 eps of the products are noise (2 eps were
        measured at 1,024 columns of half the rank) and count as zero.
        """
        exact = torch.finfo(self._upper.dtype).eps
        rtol = self._upper.shape[0] * exact
        if self._eps > exact:
            rtol = max(rtol, 8 * self._eps)
        return by_pivoted_cholesky(self.matrix, scale=scale, unit=unit, rtol=rtol, overwrite=True)


class CrossGram:
    """A^T B of all pairs of rows seen, (left, right): the right-hand side of a refit.

    Args:
        left: columns of A.
        right: columns of B.
        device: where the sum lives; rows are moved there.
        dtype: of the sum.
        product_dtype: of the products, as for `Gram`.
    """

    def __init__(
        self,
        left: int,
        right: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float64,
        product_dtype: torch.dtype | None = None,
    ) -> None:
        self._product_dtype = product_dtype or dtype
        self._sum = torch.zeros(left, right, device=device, dtype=dtype)
        self._rows = 0

    @property
    def rows(self) -> int:
        """Pairs of rows seen so far."""
        return self._rows

    @property
    def matrix(self) -> Tensor:
        """C = A^T B, (left, right), a copy."""
        return self._sum.clone()

    def take(self) -> Tensor:
        """The same in the memory of the sum, of which nothing is left."""
        return self._sum

    def update(
        self,
        A: Tensor,  # (n, left)
        B: Tensor,  # (n, right)
        row_weights: Tensor | None = None,  # (n,) above 0
    ) -> None:
        """Add A^T B, or A^T diag(row_weights) B.

        Raises:
            TypeError, ValueError: A is not (n, left) or B not (n, right) floating-point numbers, or weights
                are not (n,).
            NonFiniteError: A or B holds NaN or infinity; nothing is added.
        """
        require_width(A, self._sum.shape[0], "A")
        require_width(B, self._sum.shape[1], "B")
        if A.shape[0] != B.shape[0]:
            raise ValueError(f"A has {A.shape[0]} rows and B {B.shape[0]}; pass the same rows of both.")
        require_each(row_weights, A)
        roots = None if row_weights is None else row_weights.sqrt()
        chunks = (_chunks(rows, self._sum, self._product_dtype, roots) for rows in (A, B))
        for a, b in zip(*chunks, strict=True):
            _add_product(self._sum, a, b)
        self._rows += A.shape[0]

    def merge(self, other: CrossGram) -> None:
        """Add what `other` has seen.

        Raises:
            ValueError: the shapes differ.
        """
        _add(self._sum, other._sum)
        self._rows += other._rows

    def add(self, matrix: Tensor) -> None:
        """Add a (left, right) matrix; it counts as no rows.

        Raises:
            ValueError: the shape is another one.
        """
        _add(self._sum, matrix)


def _symmetric(G: Tensor) -> Tensor:
    """G with its upper triangle on both sides of the diagonal, in place."""
    for start in range(0, len(G), _PANEL):
        stop = start + _PANEL
        square = G[start:stop, start:stop]
        square.copy_(square.triu() + square.triu(1).T)
        G[stop:, start:stop] = G[start:stop, stop:].T
    return G


def _chunks(
    Z: Tensor, total: Tensor, product_dtype: torch.dtype, factors: Tensor | None = None
) -> Iterator[Tensor]:
    """A few rows after the other, each times its factor."""
    for start in range(0, Z.shape[0], _ROWS):
        rows = slice(start, start + _ROWS)
        yield weighted(Z[rows].to(total.device, product_dtype), of_rows(factors, rows))


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    if a.dtype == total.dtype:
        total.addmm_(a.T, b)
        return
    product = a.T @ b
    if not bool(torch.isfinite(product.sum())):  # rows above 1e19 overflow float32
        product = a.to(total.dtype).T @ b.to(total.dtype)
    total.add_(product)


def _add(total: Tensor, other: Tensor) -> None:
    if total.shape != other.shape:
        raise ValueError(
            f"cannot merge a sum of shape {tuple(other.shape)} into one of {tuple(total.shape)}."
        )
    total.add_(other.to(total))
