"""One triangular factor, and everything that is read off it: order, errors, interpolation.

However Z was seen (all at once, as a Gram matrix, as a tall QR, as a sketch), what comes out is a `Factor`:
the columns of Z D reordered so that the important ones come first, and the triangle R of their QR
decomposition. For every number k of units kept it answers

    which            order[:k]
    at what error    ||(Z - Z[:, I] T) D||_F = ||R22||_F        (one factorisation, every k)
    rebuilt how      T = D_I [1, R11^-1 R12] P^T D^-1           (solved, never inverted)

Sources: STAT, Flynn et al. 2024, arXiv 2406.00061; Chee et al., NeurIPS 2022; for the identity of the error,
Golub & Van Loan, Matrix Computations, 4th ed., section 5.4.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from statprune.errors import NumericalError
from statprune.linalg.checks import require_finite
from statprune.linalg.least_squares import solve_upper

_PANEL = 512  # rows of the triangle in one product


@dataclass(frozen=True, eq=False)
class Interpolation:
    """How every column is rebuilt from the kept ones: Z ~ Z[:, kept_columns] @ T.

    Attributes:
        kept: (count,) int64, the units kept, ascending.
        kept_columns: (count * unit,) int64, their columns in Z, ascending.
        T: (count * unit, m), columns in the order of Z, scaling undone; T[:, kept_columns] is exactly the
            identity.
        condition: estimated 1-norm condition number of the triangle that was solved with (1.0 when it is
            empty).
        rank: how many kept columns are independent; only those carry weight for the dropped ones.
    """

    kept: Tensor
    kept_columns: Tensor
    T: Tensor
    condition: float
    rank: int


@dataclass(frozen=True, eq=False)
class Factor:
    """Row-echelon triangular factor of Z D with its columns reordered: (Z D)[:, columns] = Q R.

    Q has orthonormal columns and is never formed.  A column that depends on earlier ones has no row of its
    own, so R has `rank` rows, each starting at its pivot.

    Attributes:
        order: (units,) int64, units in the order in which they would be kept.
        columns: (m,) int64, original column at each position; unit u = order[i] occupies positions
            i * unit .. (i + 1) * unit.
        R: (rank, m), columns in that order; R[i, : pivots[i]] == 0 and R[i, pivots[i]] > 0.
        pivots: (rank,) int64, strictly increasing positions.
        scale: (m,) diagonal of D in the original column order; ones when unscaled.
        unit: columns per unit: 1 for neurons, query heads per group times head width for heads.
    """

    order: Tensor
    columns: Tensor
    R: Tensor
    pivots: Tensor
    scale: Tensor
    unit: int

    @property
    def units(self) -> int:
        """The number of units, m / unit."""
        return self.order.numel()

    @property
    def rank(self) -> int:
        """The number of independent columns of Z D, to the tolerance of the factorisation."""
        return self.R.shape[0]

    def pivot_norms(self) -> Tensor:
        """|R_kk| along `order`, (units,), in the units of Z D; zero beyond the rank; non-increasing.

        What column order[k] adds to the span of the columns before it (STAT's neuron error).

        Raises:
            ValueError: units have more than one column; use `errors`.
        """
        if self.unit > 1:
            raise ValueError(f"pivot norms are of single columns, units here have {self.unit}; use errors().")
        norms = self.R.new_zeros(self.units)
        norms[: self.rank] = self.R[torch.arange(self.rank, device=self.R.device), self.pivots]
        return norms

    def errors(
        self,
        weight: Tensor | None = None,  # (out, m) original column order
    ) -> Tensor:
        """The error of keeping the first k units, for every k at once, (units + 1,), dtype of R.

        Without `weight`, e[k] = ||(Z - Z[:, I] T) D||_F = ||R[rows of dropped pivots]||_F.

        With `weight` W, e[k] = ||(Z - Z[:, I] T) W^T||_F: suffix sums of the squared row norms of
        R (W D^-1)[:, columns]^T.  Columns of zero scale contribute nothing: exact when W's columns are zero
        wherever the scale is, as when the scale is their norms.

        e[units] == 0 exactly; e never increases.

        Raises:
            ValueError: `weight` is not (out, m).
            NonFiniteError: `weight` holds NaN or infinity.
            NumericalError: the errors overflow.
        """
        energy = self.R.new_zeros(self.rank, dtype=torch.float64)
        read = None if weight is None else self._unscaled(weight)[:, self.columns].T
        for start in range(0, self.rank, _PANEL):
            here = slice(start, start + _PANEL)
            rows = self.R[here, start:]  # zeros to the left of it, so half of the product is left out
            energy[here] = (rows if read is None else rows @ read[start:]).double().square().sum(dim=1)
        # Summed from the small end, so that a small error is not the difference of two large ones.
        trailing = torch.cat([energy.flip(0).cumsum(0).flip(0), energy.new_zeros(1)])
        first_positions = torch.arange(self.units + 1, device=energy.device) * self.unit
        found = trailing[torch.searchsorted(self.pivots, first_positions)].sqrt().to(self.R.dtype)
        if not bool(torch.isfinite(found[0])):  # the largest
            raise NumericalError(
                f"errors of {self.units} units overflow {found.dtype}: entries of the triangle reach "
                f"{float(self.R.abs().max()):.1e}. Scale the data, or factor in torch.float64."
            )
        return found

    def interpolation(self, count: int) -> Interpolation:
        """Keep the first `count` units (0 to units) and rebuild the rest from them.

        T[:, kept_columns] is the identity and T minimises ||(Z - Z[:, kept_columns] T) D||_F.  A dropped
        column of zero scale gets a zero column.  Kept columns that depend on other kept ones rebuild only
        themselves, so T is finite at any rank.  Cost: rank^2 * (m - count * unit).

        Raises:
            ValueError: `count` is negative or larger than the number of units.
            NumericalError: the triangle could not be solved with even after damping, or T overflows.
        """
        if not 0 <= count <= self.units:
            raise ValueError(f"cannot keep {count} of {self.units} units.")
        width = count * self.unit
        rank = int(torch.searchsorted(self.pivots, width))
        pivots = self.pivots[:rank]
        solution = solve_upper(self.R[:rank, pivots], self.R[:rank, width:])  # X: (rank, m - width)

        sources = self.columns[pivots]
        dropped = self.columns[width:]
        read = self.scale[dropped] > 0
        targets = dropped[read]
        kept_columns = self.columns[:width].sort().values
        T = self.R.new_zeros(width, self.columns.numel())
        T[torch.searchsorted(kept_columns, sources)[:, None], targets] = (
            solution.X[:, read] / self.scale[targets] * self.scale[sources, None]
        )
        T[torch.arange(width, device=T.device), kept_columns] = 1
        if not bool(torch.isfinite(T).all()):
            raise NumericalError(
                f"interpolation from {count} of {self.units} units overflows {T.dtype}: the scales span "
                f"{float(self.scale.min()):.1e} to {float(self.scale.max()):.1e}. Factor in torch.float64."
            )
        return Interpolation(
            kept=self.order[:count].sort().values,
            kept_columns=kept_columns,
            T=T,
            condition=solution.condition,
            rank=rank,
        )

    def _unscaled(self, weight: Tensor) -> Tensor:
        """W D^-1, (out, m), with zero columns where the scale is zero."""
        if weight.ndim != 2 or weight.shape[1] != self.scale.numel():
            raise ValueError(f"weight has shape {tuple(weight.shape)}; pass (out, {self.scale.numel()}).")
        require_finite(weight, "weight")
        read = self.scale > 0
        return torch.where(read, weight.to(self.R) / torch.where(read, self.scale, 1), 0)
