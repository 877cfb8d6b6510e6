"""Refit a weight that is read through another: least squares in both, solved in one after the other.

What a consumer reads can be linear in one of its producers, given the others: a feed-forward's input is
gate * up, with the gate given; an attention's is what the heads' scores make of the values, with the scores
given. With D added to that producer's weight the consumer returns

    (Z + A(D)) B,   A(D) = S * (X D^T)   or, head by head,   A(D)_h = F_h D^T,   F_h = scores_h X,

so the units that are kept can take over what only those dropped did, and not only in the proportions in which
they are there already. The matrix of this problem has a row for each weight and is never formed: conjugate
gradients need A^T(A(D) B B^T) only, which one pass over the rows brings, and few iterations: what they would
still gain then is mostly noise.

Sources: conjugate gradients, Hestenes & Stiefel 1952, on the normal equations, preconditioned: Bjorck,
Numerical Methods for Least Squares Problems, 1996, chapter 7.4; early stopping as regularisation, Hanke 1995.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import inf
from typing import Protocol

import torch
from torch import Tensor

from statprune.linalg.least_squares import damped_factor
from statprune.linalg.row_weights import (
    count_of,
    of_rows,
    weighted,
    weighted_gram,
    weighted_mean,
    weighted_sum,
    wide,
)

ITERATIONS = 5
"""Of conjugate gradients, at most."""

SMOOTHING = 1e-3
"""Damping of the preconditioner's two factors, as a share of their mean diagonals."""

ROWS = 4096
"""Rows that are worked on at a time, so that products of the widest layer stay in the cache."""

SAMPLED = 8192
"""Of the rows, at even distances, so many at most are what the preconditioner is made of."""


class Reading(Protocol):
    """How the consumer's input depends on the producer's weight D (units * width, inputs)."""

    @property
    def rows(self) -> int:
        """Rows of data."""

    @property
    def dtype(self) -> torch.dtype:
        """In which products are formed."""

    @property
    def row_weights(self) -> Tensor | None:
        """(rows,) how many times each row's squared error counts; None: once."""

    def products(self, D: Tensor, rows: slice) -> Tensor:
        """A(D), (rows, columns)."""

    def transposed(self, R: Tensor, rows: slice) -> Tensor:
        """A^T(R) for R (rows, columns): (units * width, inputs)."""

    def of_one(self, row: Tensor) -> Tensor:
        """A^T(R) for an R of all rows that are this one (columns,) times their weight."""

    def second_moment(self, rows: slice) -> Tensor:
        """(inputs, inputs) of what D is multiplied with, summed over rows, and over units or heads."""

    def blocks(self, B: Tensor, rows: slice) -> Tensor:
        """(units, width, width): of the rows of B (columns, outputs) that read each unit, their products."""


@dataclass(frozen=True, eq=False)
class Gated:
    """A(D) = S * (X D^T): X (rows, inputs) and the factors S (rows, units)."""

    X: Tensor
    S: Tensor
    row_weights: Tensor | None = None

    @property
    def rows(self) -> int:
        """Rows of data."""
        return self.X.shape[0]

    @property
    def dtype(self) -> torch.dtype:
        """In which products are formed."""
        return self.X.dtype

    def products(self, D: Tensor, rows: slice) -> Tensor:
        """A(D), (rows, columns)."""
        return (self.X[rows] @ D.T).mul_(self.S[rows])

    def transposed(self, R: Tensor, rows: slice) -> Tensor:
        """A^T(R), (units * width, inputs)."""
        return (self.S[rows] * R).T @ self.X[rows]

    def of_one(self, row: Tensor) -> Tensor:
        """A^T(R) for an R of all rows that are this one times their weight, (units * width, inputs)."""
        return row[:, None] * self._sum

    @cached_property
    def _sum(self) -> Tensor:
        """S^T X, rows weighted, (units, inputs)."""
        parts = (
            (weighted(wide(self.S[rows]), of_rows(self.row_weights, rows)), wide(self.X[rows]))
            for rows in slices(self.rows)
        )
        return torch.stack([s.T @ x for s, x in parts]).sum(dim=0)

    def second_moment(self, rows: slice) -> Tensor:
        """(inputs, inputs), float64."""
        return weighted_gram(self.X[rows], of_rows(self.row_weights, rows))

    def blocks(self, B: Tensor, rows: slice) -> Tensor:
        """(units, width, width)."""
        squares = self.S[rows].to(B.dtype).square()
        weights: Tensor = weighted_mean(squares, of_rows(self.row_weights, rows)) * B.square().sum(dim=1)
        return weights[:, None, None]


@dataclass(frozen=True, eq=False)
class Mixed:
    """A(D)_h = F_h D_u^T for the heads h of unit u: F (heads, rows, inputs); `group` heads share a unit."""

    F: Tensor
    group: int = 1
    row_weights: Tensor | None = None

    @property
    def rows(self) -> int:
        """Rows of data."""
        return self.F.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """In which products are formed."""
        return self.F.dtype

    @property
    def units(self) -> int:
        """Units, each of `group` heads."""
        return self.F.shape[0] // self.group

    def products(self, D: Tensor, rows: slice) -> Tensor:
        """A(D), (rows, columns)."""
        each = D.reshape(self.units, -1, D.shape[1]).repeat_interleave(self.group, dim=0)
        return torch.cat([F @ d.T for F, d in zip(self.F[:, rows], each, strict=True)], dim=1)

    def transposed(self, R: Tensor, rows: slice) -> Tensor:
        """A^T(R), (units * width, inputs)."""
        parts = R.reshape(R.shape[0], self.F.shape[0], -1).unbind(1)
        return self._by_unit([part.T @ F for part, F in zip(parts, self.F[:, rows], strict=True)])

    def of_one(self, row: Tensor) -> Tensor:
        """A^T(R) for an R of all rows that are this one times their weight, (units * width, inputs)."""
        parts = row.reshape(len(self.F), -1, 1)
        return self._by_unit(list(parts * self._sum[:, None]))

    def _by_unit(self, heads: list[Tensor]) -> Tensor:
        """(units * width, inputs) of what belongs to each head, (width, inputs)."""
        each = torch.stack(heads)
        found: Tensor = each.reshape(self.units, self.group, *each.shape[1:]).sum(dim=1).flatten(0, 1)
        return found

    @cached_property
    def _sum(self) -> Tensor:
        """(heads, inputs) of F over its rows, weighted."""
        sums = torch.stack([weighted_sum(F, self.row_weights) for F in self.F])
        return sums.to(torch.promote_types(self.dtype, torch.float32))

    def second_moment(self, rows: slice) -> Tensor:
        """(inputs, inputs), float64."""
        own = of_rows(self.row_weights, rows)
        return torch.stack([weighted_gram(F, own) for F in self.F[:, rows]]).sum(dim=0)

    def blocks(self, B: Tensor, rows: slice) -> Tensor:
        """(units, width, width)."""
        each = B.reshape(self.units, self.group, -1, B.shape[1])
        return torch.einsum("ugwo,ugvo->uwv", each, each)


def refit_producer(
    reading: Reading,
    B: Tensor,  # (columns, outputs) float32 or float64: the consumer's weight, transposed
    missing: Tensor,  # (rows, outputs) what the consumer's output lacks: Y - Z B
    *,
    constant: bool = False,
    iterations: int = ITERATIONS,
) -> Tensor:
    """D (units * width, inputs), to be added to the producer's weight, that makes ||missing - A(D) B|| less.

    With `constant` the consumer has a bias that is fitted again: errors are about their mean. Products are
    formed in the dtype of the reading, sums and D in that of B. Every iteration lowers the error; few of them
    leave directions alone that few rows tell of. Cost: 4 rows inputs columns FLOP an iteration, and the
    lesser of 2 rows columns^2 and 4 rows columns outputs.

    Raises:
        NumericalError: a factor of the preconditioner does not exist, whatever the rescue.
    """
    left = _first_gradient(reading, B, missing, constant=constant)
    second = reading.second_moment(_sampled(reading))
    # Zeros are all that is sure where rows or the consumer are zero, or squares vanish or overflow.
    if not (0 < float(second.trace()) < inf and bool(left.any()) and bool(torch.isfinite(left).all())):
        return torch.zeros_like(left)
    factors = _preconditioner(reading, B, second)
    normal = _Normal(reading, B, constant=constant)
    D = torch.zeros_like(left)
    direction, before = torch.zeros_like(D), 1.0
    for _ in range(iterations):
        towards = _solved(factors, left)
        size = float((left * towards).sum())
        direction = towards + (size / before) * direction
        products = normal(direction)
        curvature = float((direction * products).sum())
        if not (0 < size < inf and 0 < curvature < inf):  # done, or beyond what the dtype holds
            break
        D, left = D + (size / curvature) * direction, left - (size / curvature) * products
        before = size
    return D


class _Normal:
    """The matrix of the normal equations: A^T(A(D) B B^T), rows about their mean if there is a constant."""

    def __init__(self, reading: Reading, B: Tensor, *, constant: bool) -> None:
        self._reading, self._constant, self._B = reading, constant, B
        self._count = count_of(reading.rows, reading.row_weights)
        inner = B.shape[0] <= 2 * B.shape[1]
        self._weights = [each.to(reading.dtype) for each in ([B @ B.T] if inner else [B, B.T])]

    def __call__(self, D: Tensor) -> Tensor:
        reading, d = self._reading, D.to(self._reading.dtype)
        total = torch.zeros_like(D)
        mean = D.new_zeros(self._B.shape[0])
        for rows in slices(reading.rows):
            read = reading.products(d, rows)
            if self._constant:
                mean += weighted_sum(read, of_rows(reading.row_weights, rows)).to(mean) / self._count
            for weight in self._weights:
                read = read @ weight
            total += reading.transposed(weighted(read, of_rows(reading.row_weights, rows)), rows)
        if self._constant:
            total -= reading.of_one(mean @ self._B @ self._B.T)
        return total


def _first_gradient(reading: Reading, B: Tensor, missing: Tensor, *, constant: bool) -> Tensor:
    """A^T(missing B^T), (units * width, inputs) in the dtype of B."""
    b = B.T.to(reading.dtype)
    mean = weighted_mean(missing, reading.row_weights) if constant else missing.new_zeros(missing.shape[1])

    def of(rows: slice) -> Tensor:
        read = weighted((missing[rows] - mean).to(b.dtype) @ b, of_rows(reading.row_weights, rows))
        return reading.transposed(read, rows).to(B.dtype)

    parts = map(of, slices(reading.rows))
    total = next(parts)
    for part in parts:
        total += part
    return total


def _sampled(reading: Reading) -> slice:
    return slice(None, None, max(1, reading.rows // SAMPLED))


def _preconditioner(reading: Reading, B: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Cholesky factors of what the problem's matrix nearly is: a Kronecker product for every unit.

    Returns (inputs, inputs) and (units, width, width).
    """
    right = damped_factor(second, SMOOTHING).lower
    blocks = reading.blocks(B, _sampled(reading)).double()
    mean = blocks.diagonal(dim1=1, dim2=2).mean()
    blocks.diagonal(dim1=1, dim2=2).add_(SMOOTHING * mean.clamp(min=torch.finfo(torch.float32).tiny))
    return right.to(B.dtype), torch.linalg.cholesky(blocks).to(B.dtype)


def slices(rows: int) -> list[slice]:
    """All of so many rows, ROWS at a time."""
    return [slice(start, start + ROWS) for start in range(0, rows, ROWS)]


def _solved(factors: tuple[Tensor, Tensor], gradient: Tensor) -> Tensor:
    right, blocks = factors
    each = gradient.reshape(len(blocks), -1, right.shape[0])
    each = torch.cholesky_solve(each, blocks)
    return torch.cholesky_solve(each.flatten(0, 1).T, right).T
