"""Rows that do not count alike: weighted least squares, by the weights of their squared errors.

`row_weights` (rows,) are above 0; None: every row counts once.
"""

import torch
from torch import Tensor

_ROWS = 4096  # of which a weighted copy is there at a time


def of_rows(row_weights: Tensor | None, rows: slice) -> Tensor | None:
    """Those of some rows."""
    return None if row_weights is None else row_weights[rows]


def count_of(rows: int, row_weights: Tensor | None) -> float:
    """How many times so many rows count together."""
    return float(rows if row_weights is None else row_weights.double().sum())


def weighted(rows: Tensor, row_weights: Tensor | None) -> Tensor:
    """Each of the rows (count, columns) times its weight, in the dtype of the rows."""
    return rows if row_weights is None else rows * row_weights[:, None].to(rows)


def weighted_sum(rows: Tensor, row_weights: Tensor | None) -> Tensor:
    """Of rows (count, columns), (columns,) float64."""
    if row_weights is None:
        return rows.sum(dim=0, dtype=torch.float64)
    total = rows.new_zeros(rows.shape[1], dtype=torch.float64)
    for start in range(0, len(rows), _ROWS):
        part = slice(start, start + _ROWS)
        total += weighted(wide(rows[part]), row_weights[part]).sum(dim=0, dtype=torch.float64)
    return total


def weighted_mean(rows: Tensor, row_weights: Tensor | None) -> Tensor:
    """Of rows (count, columns), (columns,) in their dtype."""
    if row_weights is None:
        return rows.mean(dim=0)
    return (weighted_sum(rows, row_weights) / count_of(len(rows), row_weights)).to(rows)


def weighted_gram(rows: Tensor, row_weights: Tensor | None) -> Tensor:
    """X^T diag(row_weights) X of rows X (count, columns), float64; products in float32 at least."""
    total = rows.new_zeros(rows.shape[1], rows.shape[1], dtype=torch.float64)
    for start in range(0, len(rows), _ROWS):
        part = slice(start, start + _ROWS)
        X = wide(rows[part])
        total += X.T @ weighted(X, of_rows(row_weights, part))
    return total


def wide(rows: Tensor) -> Tensor:
    """In float32, or float64 if they are that already."""
    return rows.to(torch.promote_types(rows.dtype, torch.float32))
