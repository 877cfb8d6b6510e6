"""Pivoted Cholesky of a Gram matrix: the order and the triangle of pivoted QR, without ever holding Z.

With G = Z^T Z, the pivoted Cholesky factor of D G D is the R of the column-pivoted QR of Z D: at each step
the largest remaining diagonal entry is the largest squared norm outside the span so far.  Squaring costs
digits: pivots below sqrt(m eps) of the largest are lost, so accumulate G in float64.

Sources: Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 10.3; LAPACK `pstrf` (Lucas
2004, LAPACK working note 161); heads: STAT, Flynn et al. 2024, arXiv 2406.00061, here on Gram
matrices.
"""

from __future__ import annotations

import torch
from scipy.linalg import lapack
from torch import Tensor

from statprune.errors import NumericalError
from statprune.linalg.checks import column_scale, require_matrix, units_in
from statprune.linalg.factor import Factor


def by_pivoted_cholesky(
    G: Tensor,  # (m, m) symmetric positive semidefinite
    *,
    scale: Tensor | None = None,  # (m,)
    unit: int = 1,
    rtol: float | None = None,
    pivot_blocks: bool = False,
    overwrite: bool = False,
) -> Factor:
    """The factor of Z D, D = diag(scale), from G = Z^T Z alone: R^T R = (D G D)[columns, columns].

    unit == 1: LAPACK `pstrf` on the CPU, a blocked torch version elsewhere.  unit > 1 (STAT's heads): with
    F[h, h'] the trace of block (h, h') of D G D, the order is that of pivoted Cholesky of F, which is exactly
    pivoted QR of the flattened units; then block Cholesky of D G D in that order, pivoted only inside units.
    `pivot_blocks` instead takes, at each step, the unit of largest energy outside the span of all columns
    taken so far: another method, which chooses other units (greedy on the error that remains).

    `overwrite` may leave anything in G, and spares two copies of it.

    A squared pivot at or below `rtol` (m eps unless given) times the largest diagonal entry counts as zero;
    units without energy left follow in index order.  Cost: m^3 / 3 FLOP, on the blocked
    and rank-deficient paths 2 m^3.

    Raises:
        TypeError: G is neither float32 nor float64.
        ValueError: G is not square, not of whole units, or `scale` does not fit it.
        NonFiniteError: G or `scale` holds NaN or infinity, or D G D overflows.
        NumericalError: G has a negative diagonal entry, so it is not a Gram matrix.
    """
    require_matrix(G, "G")
    if G.shape[0] != G.shape[1]:
        raise ValueError(f"G has shape {tuple(G.shape)}; a Gram matrix is square.")
    m = G.shape[0]
    units = units_in(m, unit)
    scale = column_scale(scale, G)
    scaled = (G if overwrite else G.clone()).mul_(scale[:, None]).mul_(scale)
    require_matrix(scaled, "G times scale")
    energy = scaled.diagonal()
    if bool((energy < 0).any()):
        raise NumericalError(
            f"G: {int((energy < 0).sum())} of {m} diagonal entries are negative (least "
            f"{float(energy.min()):.1e}); pass a Gram matrix Z^T Z."
        )
    eps = torch.finfo(G.dtype).eps
    tolerance = (m * eps if rtol is None else rtol) * float(energy.max())

    if unit == 1:
        order, R = _pivoted(scaled, tolerance)
        columns, pivots = order, torch.arange(R.shape[0], device=G.device)
    elif pivot_blocks:
        order, columns, pivots, R = _unit_by_unit(scaled, unit, tolerance, None)
    else:
        # F[h, h'] = sum over i of block (h, h')[i, i]: the Gram matrix of the flattened units
        F = scaled.reshape(units, unit, units, unit).diagonal(dim1=1, dim2=3).sum(dim=-1)
        order, _ = _pivoted(F, units * eps * float(F.diagonal().max()))
        columns, pivots, R = _in_order(scaled, order, unit, tolerance)
    return Factor(order=order, columns=columns, R=R, pivots=pivots, scale=scale, unit=unit)


def _pivoted(A: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
    """Order (m,) and R (rank, m) of pivoted Cholesky, columns beyond the rank last; overwrites A."""
    return _by_lapack(A, tolerance) if A.device.type == "cpu" else _blocked(A, tolerance)


def _by_lapack(A: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
    """`_pivoted` by LAPACK `pstrf`, which never compares its first pivot with the tolerance: we do."""
    m = A.shape[0]
    if float(A.diagonal().max()) <= tolerance:
        return torch.arange(m, device=A.device), A.new_zeros(0, m)
    pstrf = lapack.dpstrf if A.dtype == torch.float64 else lapack.spstrf
    # Transposed, since LAPACK counts columns first; it works in place, and A is symmetric.
    factor, order, rank, _ = pstrf(A.numpy().T, tol=tolerance, overwrite_a=True)
    order = torch.from_numpy(order).long() - 1
    tail, place = order[rank:].sort()
    R = torch.from_numpy(factor)[:rank].triu()
    return torch.cat([order[:rank], tail]), torch.cat([R[:, :rank], R[:, rank:][:, place]], dim=1)


def _blocked(A: Tensor, tolerance: float, panel: int = 64) -> tuple[Tensor, Tensor]:
    """`_pivoted` in torch: `panel` rows at a time, then one matrix product for all that remains.

    Nothing is swapped: chosen columns are masked.  Inside a panel nothing is read back, so an accelerator
    waits for the host once per panel and not once per pivot; steps past the rank are cut off afterwards.
    """
    m = A.shape[0]
    A, energy = A.clone(), A.diagonal().clone()
    free = torch.ones(m, dtype=torch.bool, device=A.device)
    taken: list[Tensor] = []
    rows: list[Tensor] = []
    for start in range(0, m, panel):
        count = min(panel, m - start)
        R = A.new_zeros(count, m)
        pivots = torch.zeros(count, dtype=torch.long, device=A.device)
        squares = A.new_zeros(count)
        for i in range(count):
            p = torch.where(free, energy, -torch.inf).argmax(
                dim=0, keepdim=True
            )  # (1,): a scalar would be read back
            root = energy[p].clamp(min=torch.finfo(A.dtype).tiny).sqrt()
            row = (A[p] - R[:i, p].T @ R[:i]) / root * free  # (1, m)
            row[:, p] = root
            pivots[i : i + 1], squares[i : i + 1], R[i : i + 1] = p, energy[p], row
            free.index_fill_(0, p, value=False)
            energy = energy - row[0].square()
        rank = int((squares > tolerance).long().cumprod(0).sum())
        taken.append(pivots[:rank])
        rows.append(R[:rank])
        if rank < count:
            break
        A.addmm_(R.T, R, alpha=-1)
    order = torch.cat(taken)
    rest = torch.ones(m, dtype=torch.bool, device=A.device)
    rest[order] = False
    order = torch.cat([order, rest.nonzero().flatten()])
    return order, torch.cat(rows)[:, order]


def _in_order(A: Tensor, order: Tensor, unit: int, tolerance: float) -> tuple[Tensor, Tensor, Tensor]:
    """Columns, pivots and R of block Cholesky in the given order of units."""
    columns = (order[:, None] * unit + torch.arange(unit, device=A.device)).flatten()
    R, failed = torch.linalg.cholesky_ex(A[columns[:, None], columns], upper=True)
    if int(failed) == 0 and bool((R.diagonal().square() > tolerance).all()):
        return columns, torch.arange(columns.numel(), device=A.device), R
    _, columns, pivots, R = _unit_by_unit(A, unit, tolerance, order)
    return columns, pivots, R


def _unit_by_unit(
    A: Tensor,  # (m, m)
    unit: int,
    tolerance: float,
    order: Tensor | None,  # (units,), or None: largest remaining trace first
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Order, columns, pivots and R of block Cholesky for any rank, pivoted inside each residual block."""
    m, device = A.shape[0], A.device
    A = A.clone()
    left = torch.ones(m // unit, dtype=torch.bool, device=device)
    free = torch.ones(m, dtype=torch.bool, device=device)
    chosen: list[int] = []
    columns: list[Tensor] = []
    pivots = [torch.arange(0, device=device)]
    rows = [A.new_zeros(0, m)]
    for start in range(0, m, unit):
        u = _most_energy(A, unit, left, tolerance) if order is None else int(order[start // unit])
        own = torch.arange(u * unit, (u + 1) * unit, device=device)
        inner, triangle = _pivoted(A[own[:, None], own], tolerance)
        rank = triangle.shape[0]
        R = torch.linalg.solve_triangular(triangle[:, :rank].T, A[own[inner[:rank]]] * free, upper=False)
        R[:, own[inner]] = triangle
        A.addmm_(R.T, R, alpha=-1)
        left[u], free[own] = False, False
        chosen.append(u)
        columns.append(own[inner])
        pivots.append(torch.arange(start, start + rank, device=device))
        rows.append(R)
    ordered = torch.cat(columns)
    return torch.tensor(chosen, device=device), ordered, torch.cat(pivots), torch.cat(rows)[:, ordered]


def _most_energy(A: Tensor, unit: int, left: Tensor, tolerance: float) -> int:
    """The unit left with the largest trace; the first one left where no column is above the tolerance."""
    diagonal = A.diagonal().reshape(-1, unit)
    energy = torch.where((diagonal > tolerance).any(dim=1), diagonal.sum(dim=1), 0)
    return int(torch.where(left, energy, -1).argmax())
