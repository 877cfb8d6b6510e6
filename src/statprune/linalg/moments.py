"""Everything that a least-squares fit of Y on Z needs, summed batch by batch; with or without a constant.

Sources: the normal equations with centred variables, Golub & Van Loan, Matrix Computations, 4th ed., 5.3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import isfinite

import torch
from torch import Tensor

from statprune.errors import NumericalError
from statprune.linalg.checks import require_each, require_finite, require_width
from statprune.linalg.gram import CrossGram, Gram
from statprune.linalg.row_weights import count_of, weighted_sum

_PANEL = 512  # columns of targets whose errors are formed at a time


@dataclass(frozen=True, eq=False)
class Moments:
    """Second moments of paired rows, centred where the fit has a constant; all of them weighted.

    Attributes:
        G: (m, m) of the inputs; C: (m, out) of inputs and targets.
        energy: sum of squares of the targets.
        mean_input: (m,) and mean_target (out,): means over all rows; zero where the fit has no constant.
        rows: rows seen.
        weight: the sum of their weights.
    """

    G: Tensor
    C: Tensor
    energy: float
    mean_input: Tensor
    mean_target: Tensor
    rows: int
    weight: float

    def of(self, columns: Tensor) -> Moments:
        """The same of some of the input columns, (count,) int64."""
        return Moments(
            self.G[columns[:, None], columns],
            self.C[columns],
            self.energy,
            self.mean_input[columns],
            self.mean_target,
            self.rows,
            self.weight,
        )

    def error(self, B: Tensor) -> float:
        """||Y - Z B||^2 for B (m, out), over all rows.

        Raises:
            NumericalError: it overflows.
        """
        return self._error(B, lambda part: self.G @ B[:, part])

    def _error(self, B: Tensor, fitted: Callable[[slice], Tensor]) -> float:
        """`fitted` gives some columns of G B."""
        explained = 0.0
        for start in range(0, B.shape[1], _PANEL):
            part = slice(start, start + _PANEL)
            explained += float((B[:, part] * (2 * self.C[:, part] - fitted(part))).sum())
        if not isfinite(self.energy - explained):
            raise NumericalError(
                f"the error of a fit of {B.shape[0]} columns overflows: targets have energy "
                f"{self.energy:.1e}, of which it explains {explained:.1e}. Scale the data."
            )
        return max(0.0, self.energy - explained)

    def against(self, B: Tensor, *, overwrite: bool = False) -> Moments:
        """The same for the targets Y - Z B that a fit B (m, out) leaves; `overwrite` takes C for it."""
        fitted = self.G @ B
        energy = self._error(B, lambda part: fitted[:, part])
        return Moments(
            self.G,
            self.C.sub_(fitted) if overwrite else self.C - fitted,
            energy,
            self.mean_input,
            self.shift(B),
            self.rows,
            self.weight,
        )

    def shift(self, B: Tensor) -> Tensor:
        """(out,) the constant that belongs to B (m, out); zero where the fit has none."""
        return self.mean_target - self.mean_input @ B


class MomentSum:
    """Takes pairs of rows as they come, in any floating dtype, and sums them in float64.

    Products are formed in float32, as `Gram` allows: errors of 1e-6 of the norms, far below the
    damping of the fits that read them; in `products`, if that is given. Where the fit has a constant, rows
    are shifted by the means of the first ones before they are multiplied, so that a mean far above the spread
    costs no digits. Memory: m^2 + m out numbers. Rows are moved to `device`.

    Args:
        inputs: columns of Z.
        outputs: columns of Y.
        constant: whether the fit has a constant, so that moments are centred.
        device: where the sums live.
        products: the dtype in which products are formed: float32, or float64.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        constant: bool,
        device: torch.device | str | None = None,
        products: torch.dtype = torch.float32,
    ) -> None:
        self._gram = Gram(inputs, device=device, product_dtype=products)
        self._cross = CrossGram(inputs, outputs, device=device, product_dtype=products)
        self._input_sum = torch.zeros(inputs, dtype=torch.float64, device=device)
        self._target_sum = torch.zeros(outputs, dtype=torch.float64, device=device)
        self._energy = torch.zeros((), dtype=torch.float64, device=device)
        self._weight = 0.0
        self._input_shift = torch.zeros_like(self._input_sum)
        self._target_shift = torch.zeros_like(self._target_sum)
        self._constant, self._products = constant, products

    @property
    def rows(self) -> int:
        """Rows seen so far."""
        return self._gram.rows

    def update(
        self,
        Z: Tensor,  # (n, inputs)
        Y: Tensor,  # (n, outputs)
        row_weights: Tensor | None = None,  # (n,) above 0: so many times each row counts; None: once
    ) -> None:
        """Add the rows.

        Raises:
            TypeError, ValueError: shapes or dtypes do not fit.
            NonFiniteError: Z or Y holds NaN or infinity.
        """
        require_width(Z, len(self._input_sum), "A")
        require_width(Y, len(self._target_sum), "B")
        require_each(row_weights, Z)
        count = count_of(len(Z), row_weights)
        if self._constant and self.rows == 0 and len(Z) and len(Z) == len(Y):
            means = (weighted_sum(rows, row_weights) / count for rows in (Z, Y))
            # Numbers that float32 holds.
            self._input_shift, self._target_shift = (mean.float().to(self._energy) for mean in means)
        if self._constant:
            Z = _less(Z, self._input_shift, self._products)
            Y = _less(Y, self._target_shift, self._products)
        self._cross.update(Z, Y, row_weights)
        self._gram.update(Z, row_weights)
        if self._constant:
            self._input_sum += weighted_sum(Z, row_weights).to(self._input_sum.device)
            self._target_sum += weighted_sum(Y, row_weights).to(self._target_sum.device)
        self._weight += count
        squares = Y.to(torch.float64, copy=True).square_()
        self._energy += weighted_sum(squares, row_weights).sum().to(self._energy.device)

    def merge(self, other: MomentSum) -> None:
        """Add what `other` has seen."""
        if self.rows == 0:
            self._input_shift, self._target_shift = other._input_shift, other._target_shift
        # About our shifts, the rows of `other` are larger by a and b.
        a, b = other._input_shift - self._input_shift, other._target_shift - self._target_shift
        s, t, n = other._input_sum, other._target_sum, other._weight
        self._gram.merge(other._gram)
        self._cross.merge(other._cross)
        if n and self._constant:
            self._gram.add(torch.outer(a, s).add_(torch.outer(s, a)).add_(torch.outer(a, a).mul_(n)))
            self._cross.add(torch.outer(a, t).add_(torch.outer(s, b)).add_(torch.outer(a, b).mul_(n)))
        self._input_sum += s + n * a
        self._target_sum += t + n * b
        self._weight += other._weight
        self._energy += other._energy + 2 * (b @ t) + n * (b @ b)

    def moments(self) -> Moments:
        """Of all rows, about their own means where the fit has a constant; nothing is left of the sums.

        Raises:
            NonFiniteError: the sums overflow.
        """
        return self._about(*self._means())

    def _means(self) -> tuple[Tensor, Tensor]:
        if not self._constant or self.rows == 0:
            return torch.zeros_like(self._input_sum), torch.zeros_like(self._target_sum)
        return (
            self._input_shift + self._input_sum / self._weight,
            self._target_shift + self._target_sum / self._weight,
        )

    def _about(self, mean_input: Tensor, mean_target: Tensor) -> Moments:
        a, b = mean_input - self._input_shift, mean_target - self._target_shift
        s, t, n, rows = self._input_sum, self._target_sum, self._weight, self.rows
        G, C = self._gram.take(), self._cross.take()
        del self._gram, self._cross
        if self._constant:
            noise = 8 * torch.finfo(self._products).eps * (G.diagonal() + n * a.square())
            noise += n * (4 * torch.finfo(torch.float64).eps * mean_input).square()
            for M, left, right, u, v in ((G, a, s, s, a), (C, a, t, s, b)):
                M.sub_(torch.outer(left, right)).sub_(torch.outer(u, v))
                M.add_(torch.outer(a, v).mul_(n))
            # What is left of a column that never moves is rounding, and of any sign.
            still = G.diagonal() <= noise
            if bool(still.any()):
                G[still], G[:, still] = 0.0, 0.0
        energy = self._energy - 2 * (b @ t) + n * (b @ b)
        for M, name in ((G, "second moments of inputs"), (C, "moments of inputs and targets")):
            require_finite(M, name)
        return Moments(G, C, float(energy), mean_input, mean_target, rows, n)


def _less(rows: Tensor, shift: Tensor, least: torch.dtype) -> Tensor:
    """Rows less the shift, in a dtype as wide as `least`."""
    dtype = torch.promote_types(rows.dtype, least)
    return rows.to(shift.device, dtype) - shift.to(dtype)


@dataclass(eq=False)
class Halves:
    """Moments of the rows to fit, and of those held out, about the means of all rows.

    Memory: m^2 + m out numbers for each, and m out for all; m^2 more where the fit has a constant.
    """

    fit: Moments
    held: Moments
    _whole: Moments
    _shared: bool  # whether _whole.G is still that of `fit`

    @property
    def spread(self) -> float:
        """The trace of G over all rows."""
        return float(self.fit.G.trace() + self.held.G.trace())

    @property
    def energy(self) -> float:
        """The sum of squares of the targets over all rows."""
        return self.fit.energy + self.held.energy

    def against(self, B: Tensor) -> tuple[Moments, Moments]:
        """The two for the targets Y - Z B that a fit B (m, out) leaves; those of Y are gone."""
        self.fit = self.fit.against(B, overwrite=True)
        self.held = self.held.against(B, overwrite=True)
        return self.fit, self.held

    def whole(self) -> Moments:
        """Of all rows; the two are gone."""
        if self._shared:
            self._whole.G.add_(self.held.G)
        del self.fit, self.held
        return self._whole


def in_two(fit: MomentSum, held: MomentSum) -> Halves:
    """The moments of two sums, of which nothing is left.

    Raises:
        NonFiniteError: a sum overflows.
    """
    if fit._constant:
        whole = MomentSum(len(fit._input_sum), len(fit._target_sum), constant=True, device=fit._energy.device)
        whole.merge(fit)
        whole.merge(held)
        a, b = whole._means()
        return Halves(fit._about(a, b), held._about(a, b), whole.moments(), _shared=False)
    energy = float(fit._energy + held._energy)
    first, second = fit.moments(), held.moments()
    rows, weight = first.rows + second.rows, first.weight + second.weight
    both = replace(first, C=first.C + second.C, energy=energy, rows=rows, weight=weight)
    return Halves(first, second, both, _shared=True)
