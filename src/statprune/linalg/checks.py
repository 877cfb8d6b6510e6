"""What every factorisation asks of its input, asked in one place."""

from __future__ import annotations

import torch
from torch import Tensor

from statprune.errors import NonFiniteError


def require_finite(values: Tensor, name: str) -> None:
    """Refuse NaN and infinity in `values`, saying how many of how many entries they are.

    Raises:
        NonFiniteError: at least one entry is NaN or infinite.
    """
    # A sum of finite numbers is finite unless it overflows, and costs one pass; only then look at each.
    if bool(torch.isfinite(values.sum())):
        return
    finite = torch.isfinite(values)
    if bool(finite.all()):
        return
    bad = int(values.numel() - finite.sum())
    raise NonFiniteError(
        f"{name}: {bad} of {values.numel()} entries are NaN or infinite. "
        "Look for overflow upstream (float16 activations are the usual source) and pass finite numbers."
    )


def require_matrix(values: Tensor, name: str) -> None:
    """Refuse what is not a finite two-dimensional float32 or float64 tensor.

    Raises:
        TypeError: the dtype is neither float32 nor float64.
        ValueError: the tensor is not two-dimensional.
        NonFiniteError: at least one entry is NaN or infinite.
    """
    if values.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"{name} is {values.dtype}; cast it to torch.float32 or torch.float64.")
    if values.ndim != 2:
        raise ValueError(f"{name} has shape {tuple(values.shape)}; pass a matrix.")
    require_finite(values, name)


def require_each(row_weights: Tensor | None, rows: Tensor) -> None:
    """Raise ValueError unless there is a weight for each of the rows (n, columns), or None."""
    if row_weights is not None and row_weights.shape != rows.shape[:1]:
        raise ValueError(
            f"row_weights has shape {tuple(row_weights.shape)} for {len(rows)} rows; pass one for each."
        )


def require_width(Z: Tensor, width: int, name: str) -> None:
    """Refuse rows that are not `width` finite floating-point numbers long.

    Raises:
        TypeError: `Z` does not hold floating-point numbers.
        ValueError: `Z` is not (rows, width).
        NonFiniteError: at least one entry is NaN or infinite.
    """
    if not Z.is_floating_point():
        raise TypeError(f"{name} is {Z.dtype}; pass floating-point rows.")
    if Z.ndim != 2 or Z.shape[1] != width:
        raise ValueError(f"{name} has shape {tuple(Z.shape)}; pass (rows, {width}).")
    require_finite(Z, name)


def units_in(width: int, unit: int) -> int:
    """The number of units of `unit` columns that make up `width` columns.

    Raises:
        ValueError: there are no columns, or they are not a whole number of units.
    """
    if unit < 1 or width < 1 or width % unit:
        raise ValueError(f"{width} columns are not a whole, positive number of units of {unit} columns.")
    return width // unit


def column_scale(scale: Tensor | None, like: Tensor) -> Tensor:
    """The diagonal of D, (m,), for the columns of `like` (·, m): ones where `scale` is None.

    Entries too small to be divided by (below the smallest normal number) become zero: such a column is read
    by nobody.

    Raises:
        ValueError: the shape is wrong or an entry is negative.
        NonFiniteError: an entry is NaN or infinite.
    """
    width = like.shape[1]
    if scale is None:
        return torch.ones(width, dtype=like.dtype, device=like.device)
    if scale.shape != (width,):
        raise ValueError(
            f"scale has shape {tuple(scale.shape)}; pass one number for each of {width} columns."
        )
    scale = scale.to(like)
    require_finite(scale, "scale")
    if bool((scale < 0).any()):
        raise ValueError(f"scale: {int((scale < 0).sum())} of {width} entries are negative; pass norms.")
    return torch.where(scale < torch.finfo(scale.dtype).tiny, 0, scale)
