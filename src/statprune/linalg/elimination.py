"""Backward elimination: the units that a least-squares fit misses least, from Gram matrices alone.

Of min_B ||Y - Z B||^2 + lambda ||B||^2, with H = Z^T Z + lambda I, the solution is B = H^-1 Z^T Y. Taking
the columns S away and fitting the others again raises the minimum by exactly

    tr(B_S^T ([H^-1]_SS)^-1 B_S),

after which H^-1 and B of the columns that are left follow by a downdate. One pass, the cheapest unit first,
yields an order of the units and the error of every width, as pivoted QR does; but it sees what the consumer
makes of the units, and what the others can take over.

Sources: the optimal brain surgeon, Hassibi & Stork 1992, on a layer's own least-squares problem, as in
Frantar & Alistarh, "Optimal Brain Compression", NeurIPS 2022; for blocks of columns Kurtic et al., "ZipLM",
NeurIPS 2023.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np
import torch
from torch import Tensor

from statprune.errors import NumericalError
from statprune.linalg.checks import require_matrix, units_in
from statprune.linalg.least_squares import damped_factor

AT_ONCE = 1 / 16
"""Share of the units left that is taken away between two downdates, where a unit is a single column."""

_ROWS = 256  # of a matrix that is compacted, at a time

CANDIDATES = 3
"""So many times the units taken at once are looked at, one after the other, before they are taken."""


@dataclass(frozen=True, eq=False)
class Elimination:
    """An order of the units, and what every width costs.

    Attributes:
        order: (units,) int64, units in the order in which they are kept: the last one goes first. Those to
            which elimination did not get come first, in no order.
        errors: (units + 1,) float64 on the CPU; by how much keeping only order[:k] raises the minimum of
            ||Y - Z B||^2 + lambda ||B||^2 over that of keeping all; never increasing, 0 at full width.
            Infinite where elimination did not get.
    """

    order: Tensor
    errors: Tensor


def eliminate(
    G: Tensor,  # (m, m) Z^T Z
    B: Tensor,  # (m, out) the fit with all columns, H^-1 C for some C
    *,
    unit: int = 1,
    damping: float,
    at_once: float = AT_ONCE,
    least: int = 0,
) -> Elimination:
    """Take units of `unit` columns away, the cheapest first, until `least` or a few fewer are left.

    lambda is `damping` times the mean diagonal of G. Units of several columns go one by one. Units of one
    column go in groups of `at_once` of those left (at least one): among the cheapest, CANDIDATES times as
    many, they are taken one by one and exactly, and only then is the rest downdated. Errors are exact; the
    order is that of taking the cheapest of all each time, unless one that was no candidate has become cheaper
    meanwhile. Cost: about 2 m^3 FLOP, less with `least`.

    Raises:
        ValueError: G is not square, not of whole units, or B does not match it; at_once is not a share, or
            least not a number of units.
        NonFiniteError: G or B holds NaN or infinity.
        NumericalError: the damped G has no Cholesky factor, whatever the rescue.
    """
    require_matrix(B, "B")
    units = units_in(G.shape[0], unit)
    if B.shape[0] != G.shape[0]:
        raise ValueError(f"B has {B.shape[0]} rows for {G.shape[0]} columns; pass one for each.")
    if not 0 < at_once <= 1:
        raise ValueError(f"at_once is {at_once!r}; pass a share above 0 and at most 1.")
    if not 0 <= least <= units:
        raise ValueError(f"least is {least!r}; pass a number of units, 0 to {units}.")
    # The inverse itself is what is downdated; it comes from the factor, of a matrix that is damped, in whose
    # memory it stays.
    P = damped_factor(G, damping).lower
    P = torch.cholesky_inverse(P, out=P).mT.contiguous()
    left = torch.arange(units, device=G.device)
    taken: list[Tensor] = []
    added: list[Tensor] = []
    while left.numel() > least:
        costs = _costs(P, B, unit)
        count = max(1, int(left.numel() * at_once)) if unit == 1 else 1
        if count == 1:
            chosen = costs.argmin().reshape(1)
            steps = costs[chosen].clamp(min=0)
        else:
            near = costs.topk(min(CANDIDATES * count, left.numel()), largest=False).indices
            order, steps = _one_by_one(P[near[:, None], near], B[near] @ B[near].T, count)
            chosen = near[order]
        P, B = _without(P, B, chosen, unit)
        taken.append(left[chosen])
        added.append(steps)
        stays = torch.ones_like(left, dtype=torch.bool)
        stays[chosen] = False
        left = left[stays]
    none = torch.zeros(0, dtype=torch.float64, device="cpu")
    errors = torch.cat([none, *(step.double().cpu() for step in added)]).cumsum(0).flip(0)
    beyond = errors.new_full((left.numel(),), inf)
    return Elimination(
        order=torch.cat([*taken, left]).flip(0), errors=torch.cat([beyond, errors, errors.new_zeros(1)])
    )


def _costs(P: Tensor, B: Tensor, unit: int) -> Tensor:
    """What taking each unit away alone would add, (units left,)."""
    if unit == 1:
        return B.square().sum(dim=1) / P.diagonal()
    units = P.shape[0] // unit
    blocks = (
        P.reshape(units, unit, units, unit).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
    )  # (units, unit, unit)
    rows = B.reshape(units, unit, -1)
    solved, failed = torch.linalg.solve_ex(blocks, rows)
    if bool(failed.any()):
        raise _not_positive(P.shape[0], unit)
    costs: Tensor = (rows * solved).sum(dim=(1, 2))
    return costs


def _not_positive(columns: int, among: int) -> NumericalError:
    return NumericalError(
        f"eliminate: the inverse of {columns} columns is not positive at {among} of them any more. Raise "
        "damping, or give more calibration rows."
    )


def _one_by_one(P: Tensor, M: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The first `count` columns to go among few, and what each adds, exactly.

    Args:
        P: (few, few) of the inverse.
        M: (few, few) inner products of the rows of B.
        count: how many go.

    With B - P_:j B_j / P_jj after column j has gone, its inner products follow without B itself. Both
    matrices lose terms of low rank: their diagonals are kept up to date, of the rest only the column that
    goes is formed.
    """
    device, dtype = P.device, P.dtype
    p, inner = (each.double().cpu().numpy() for each in (P, M))
    p_left, inner_left = p.diagonal().copy(), inner.diagonal().copy()
    shares, rows = np.empty((2, count, len(p)))
    pivots = np.empty(count)
    order, steps = [], []
    left = np.ones(len(p), dtype=bool)
    for t in range(count):
        if not (p_left[left] > 0).all():
            raise _not_positive(len(p), int((~(p_left[left] > 0)).sum()))
        costs = np.where(left, inner_left / np.where(left, p_left, 1), np.inf)
        j = int(costs.argmin())
        order.append(j)
        steps.append(max(0.0, float(costs[j])))
        before, b = shares[:t], rows[:t]
        pivots[t] = p_left[j]
        shares[t] = (p[:, j] - (before[:, j] * pivots[:t]) @ before) / pivots[t]
        # P loses p_jj c c^T, and M loses c r^T + r c^T.
        rows[t] = inner[:, j] - before[:, j] @ b - b[:, j] @ before - shares[t] * (inner_left[j] / 2)
        p_left -= pivots[t] * np.square(shares[t])
        inner_left -= 2 * shares[t] * rows[t]
        left[j] = False
    return torch.tensor(order, device=device), torch.tensor(steps, device=device, dtype=dtype)


def _without(P: Tensor, B: Tensor, chosen: Tensor, unit: int) -> tuple[Tensor, Tensor]:
    """P and B of the columns that are left when the units `chosen` are gone."""
    gone = (chosen[:, None] * unit + torch.arange(unit, device=chosen.device)).flatten()
    stays = torch.ones(P.shape[0], dtype=torch.bool, device=P.device)
    stays[gone] = False
    kept = stays.nonzero().flatten()
    across = P[kept[:, None], gone]  # (kept, gone)
    lower, failed = torch.linalg.cholesky_ex(P[gone[:, None], gone])
    if int(failed):
        raise _not_positive(P.shape[0], gone.numel())
    solved = torch.cholesky_solve(torch.cat([across.T, B[gone]], dim=1), lower)
    P = _compacted(P, kept).addmm_(across, solved[:, : kept.numel()], alpha=-1)
    return P, B[kept].sub_(across @ solved[:, kept.numel() :])


def _compacted(P: Tensor, kept: Tensor) -> Tensor:
    """P[kept][:, kept] in the memory of P, which is contiguous; `kept` (count,) int64 is sorted."""
    count, memory = kept.numel(), P.view(-1)
    for start in range(0, count, _ROWS):
        part = P[kept[start : start + _ROWS, None], kept]  # no row behind these has been written over
        memory[start * count :][: part.numel()] = part.view(-1)
    return memory[: count * count].view(count, count)
