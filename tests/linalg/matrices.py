"""Matrices whose factors are known, and the answers they are compared with."""

from __future__ import annotations

from copy import deepcopy

import torch
from hypothesis import settings
from torch import Tensor

from statprune.linalg.moments import Moments, MomentSum, in_two

# Repeatable wherever it runs, and long enough to meet the odd shapes.
checked = settings(deadline=None, derandomize=True, max_examples=50, database=None)
# For what runs over every method: six times as many in all.
checked_by_method = settings(checked, max_examples=20)


def random(n: int, m: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Gaussian columns whose norms fall from 1 to 1/8 in random order: (n, m)."""
    generator = torch.Generator().manual_seed(seed)
    A = torch.randn(n, m, generator=generator, dtype=torch.float64)
    norms = torch.logspace(0, -3, m, base=2, dtype=torch.float64)
    return (A * norms[torch.randperm(m, generator=generator)]).to(dtype)


def of_rank(n: int, m: int, rank: int, seed: int) -> Tensor:
    """(n, m) of the given rank, no column zero."""
    return random(n, rank, seed) @ random(rank, m, seed + 1)


def damaged(n: int, units: int, unit: int, seed: int) -> Tensor:
    """(n, units * unit) with a zero unit, a copied unit, a copied and a zero column, where they fit."""
    A = random(n, units * unit, seed)
    where = torch.randperm(units, generator=torch.Generator().manual_seed(seed)).tolist()
    blocks = A.view(n, units, unit)
    if units > 1:
        blocks[:, where[0]] = 0
    if units > 2:
        blocks[:, where[1]] = blocks[:, where[2]]
    if unit > 1:
        blocks[:, where[-1], 0] = blocks[:, where[-1], 1]
        blocks[:, where[-units // 2], unit - 1] = 0
    return A


def direct_error(Z: Tensor, kept_columns: Tensor, T: Tensor, right: Tensor) -> float:
    """||(Z - Z[:, kept_columns] T) right||_F, computed as written."""
    return float(((Z - Z[:, kept_columns] @ T) @ right).norm())


def flattened(Z: Tensor, unit: int) -> Tensor:
    """Each unit of Z (n, m) as one column: (n * unit, m / unit)."""
    return torch.stack([block.reshape(-1) for block in Z.split(unit, dim=1)], dim=1)


def three(fit: MomentSum, held: MomentSum) -> tuple[Moments, Moments, Moments]:
    """Moments of the rows to fit, of those held out, and of all; the sums stay what they are."""
    halves = in_two(deepcopy(fit), deepcopy(held))
    parts = deepcopy((halves.fit, halves.held))
    return (*parts, halves.whole())
