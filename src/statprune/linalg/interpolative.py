"""Interpolative decomposition by column-pivoted QR: A ~ A[:, I] T.

A P = Q [R11 R12; 0 R22] with the pivots chosen greedily, each the column with the largest part outside the
span of those before it.  Then I = the first k pivots, T = [1, R11^-1 R12] P^T, and ||A - A[:, I] T||_F =
||R22||_F.

Sources: Businger & Golub 1965; Chee et al., NeurIPS 2022; STAT, Flynn et al. 2024, arXiv 2406.00061
(neurons: unit == 1; heads: unit > 1).
"""

from __future__ import annotations

import scipy.linalg
import torch
from torch import Tensor

from statprune.linalg.checks import column_scale, require_matrix, units_in
from statprune.linalg.factor import Factor


def by_pivoted_qr(
    A: Tensor,  # (n, m)
    *,
    scale: Tensor | None = None,  # (m,)
    unit: int = 1,
    rtol: float | None = None,
) -> Factor:
    """The factor of A D, D = diag(scale), with units of `unit` columns in the order of column-pivoted QR.

    unit == 1: LAPACK `geqp3`.  unit > 1 (STAT's heads): each unit is flattened to one column of length n *
    unit, and pivoted QR of those columns gives the order; then A D is factored in that order of whole units,
    unpivoted between units.  Inside a unit columns may be pivoted, which moves no error and resolves rank
    deficiency exactly.

    A pivot at or below `rtol` (eps * max(n, m) unless given) times the largest column norm of A D counts as
    zero; units without energy outside the span of the earlier ones follow in index order.

    There is no pivoted QR on accelerators: a tall A is first reduced to m x m where it is, the pivoting runs
    on the host in A's dtype, and the factor returns to A's device.  Cost: 2 n m^2 and then 4/3 m^3.

    Raises:
        TypeError: A is neither float32 nor float64.
        ValueError: A is not a matrix of whole units, or `scale` does not fit it.
        NonFiniteError: A or `scale` holds NaN or infinity, or A D overflows.
    """
    require_matrix(A, "A")
    units = units_in(A.shape[1], unit)
    scale = column_scale(scale, A)
    rtol = torch.finfo(A.dtype).eps * max(A.shape) if rtol is None else rtol
    scaled = A * scale
    require_matrix(scaled, "A times scale")
    # Q is orthogonal: the triangle of A D has its column norms, its inner products and hence its pivots.
    if scaled.shape[0] > scaled.shape[1]:
        scaled = torch.linalg.qr(scaled, mode="r").R
    host = scaled.cpu()

    if unit == 1:
        order, R = _pivoted(host, rtol)
        columns, pivots = order, torch.arange(R.shape[0], device=host.device)
    else:
        # (n, units, unit) -> (n * unit, units): one column for each unit
        flat = host.reshape(-1, units, unit).transpose(1, 2).reshape(-1, units)
        order, _ = _pivoted(flat, torch.finfo(A.dtype).eps * max(A.shape[0] * unit, units))
        columns = (order[:, None] * unit + torch.arange(unit, device=host.device)).flatten()
        tolerance = rtol * _largest_norm(host)
        columns, pivots, R = _in_order(host, columns, unit, tolerance)

    device = A.device
    return Factor(
        order=order.to(device),
        columns=columns.to(device),
        R=R.to(device),
        pivots=pivots.to(device),
        scale=scale,
        unit=unit,
    )


def _largest_norm(A: Tensor) -> float:
    """The largest norm of a column of A (n, m), where its squares may overflow or vanish."""
    if A.numel() == 0:
        return 0.0
    largest = float(A.abs().max())
    return largest * float(torch.linalg.vector_norm(A / largest, dim=0).max()) if largest > 0 else 0.0


def _pivoted(A: Tensor, rtol: float) -> tuple[Tensor, Tensor]:
    """Order of columns (m,) and R (rank, m) of column-pivoted QR; pivots up to rtol * R[0, 0] are zero."""
    if A.shape[0] == 0:
        return torch.arange(A.shape[1], device=A.device), A.new_zeros(0, A.shape[1])
    _, R, order = _geqp3(A)
    size = R.diagonal().abs()
    rank = int((size > rtol * size[0]).sum())
    return _settle(order, R, rank)


def _geqp3(A: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor, Tensor]:
    """Reflectors ((n, m), (min,)), triangle (min, m) and order (m,) of LAPACK's column-pivoted QR."""
    (reflectors, tau), R, order = scipy.linalg.qr(A.numpy(), mode="raw", pivoting=True, check_finite=False)
    raw = torch.from_numpy(reflectors), torch.from_numpy(tau)
    return raw, torch.from_numpy(R), torch.from_numpy(order).long()


def _settle(order: Tensor, R: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Cut R to its rank, make the pivots positive, put the columns beyond the rank in index order.

    Beyond the rank LAPACK chooses by rounding errors; in index order the result does not depend on them.
    """
    tail, place = order[rank:].sort()
    sign = torch.where(R.diagonal()[:rank] < 0, -1, 1).to(R.dtype)
    R = sign[:, None] * torch.cat([R[:rank, :rank], R[:rank, rank:][:, place]], dim=1)
    return torch.cat([order[:rank], tail]), R


def _in_order(
    A: Tensor,  # (n, m) scaled, n <= m
    columns: Tensor,  # (m,) units together
    unit: int,
    tolerance: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Columns, pivots and R of block QR of A[:, columns], unpivoted between units."""
    ordered = A[:, columns]
    m = columns.numel()
    if A.shape[0] == m:
        R = torch.linalg.qr(ordered, mode="r").R
        if bool((R.diagonal().abs() > tolerance).all()):
            columns, R = _settle(columns, R, m)
            return columns, torch.arange(m, device=A.device), R
    return _unit_by_unit(ordered, columns, unit, tolerance)


def _unit_by_unit(
    residual: Tensor,  # (n, m) columns already in order
    columns: Tensor,  # (m,)
    unit: int,
    tolerance: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `_in_order`, for any rank: pivoted QR of each residual panel, then its reflectors on the rest."""
    m = columns.numel()
    # Of each position's column in `columns`; changes inside units only.
    place = torch.arange(m, device=residual.device)
    rows, pivots = [residual.new_zeros(0, m)], [torch.arange(0, device=residual.device)]
    for start in range(0, m, unit):
        stop = start + unit
        if residual.shape[0] == 0:
            break
        (reflectors, tau), R, inner = _geqp3(residual[:, start:stop])
        rank = int((R.diagonal().abs() > tolerance).sum())
        if rank == 0:
            continue
        rest = torch.ormqr(reflectors[:, : tau.numel()], tau, residual[:, stop:], transpose=True)
        later = torch.arange(unit, m - start, device=residual.device)
        inner, triangle = _settle(torch.cat([inner, later]), torch.cat([R, rest[: R.shape[0]]], dim=1), rank)
        place[start:] = start + inner
        row = residual.new_zeros(rank, m)
        row[:, place[start:]] = triangle
        rows.append(row)
        pivots.append(torch.arange(start, start + rank, device=residual.device))
        residual = torch.cat([residual.new_zeros(rest.shape[0] - rank, stop), rest[rank:]], dim=1)
    return columns[place], torch.cat(pivots), torch.cat(rows)[:, place]
