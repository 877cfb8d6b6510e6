"""Small sketches with a seed of their own."""

from __future__ import annotations

import torch

from statprune.linalg.sketch import CountSketch, GaussianSketch


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian(width: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> GaussianSketch:
    return GaussianSketch(width, 40, generator=seeded(seed), dtype=dtype)


def count(width: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> CountSketch:
    return CountSketch(width, 40, generator=seeded(seed), dtype=dtype)
