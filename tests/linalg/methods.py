"""The table of factorisations every contract runs over; a new one adds one row."""

from __future__ import annotations

from collections.abc import Callable
from unittest import mock

import pytest
from torch import Tensor

from statprune.linalg import pivoted_cholesky
from statprune.linalg.factor import Factor
from statprune.linalg.gram import Gram
from statprune.linalg.interpolative import by_pivoted_qr
from statprune.linalg.pivoted_cholesky import by_pivoted_cholesky
from statprune.linalg.tall_qr import TallQR

Method = Callable[[Tensor, Tensor | None, int], Factor]


def qr(Z: Tensor, scale: Tensor | None, unit: int) -> Factor:
    return by_pivoted_qr(Z, scale=scale, unit=unit)


def cholesky(Z: Tensor, scale: Tensor | None, unit: int) -> Factor:
    return by_pivoted_cholesky(Z.T @ Z, scale=scale, unit=unit)


def blocked(Z: Tensor, scale: Tensor | None, unit: int) -> Factor:
    def panels_of_three(A: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
        return pivoted_cholesky._blocked(A, tolerance, panel=3)

    with mock.patch.object(pivoted_cholesky, "_by_lapack", panels_of_three):
        return cholesky(Z, scale, unit)


def blocks(Z: Tensor, scale: Tensor | None, unit: int) -> Factor:
    return by_pivoted_cholesky(Z.T @ Z, scale=scale, unit=unit, pivot_blocks=True)


def gram(Z: Tensor, scale: Tensor | None, unit: int) -> Factor:
    accumulator = Gram(Z.shape[1])
    for rows in Z.split(5):
        accumulator.update(rows)
    return accumulator.factor(scale, unit)


def tall_qr(Z: Tensor, scale: Tensor | None, unit: int) -> Factor:
    accumulator = TallQR(Z.shape[1])
    for rows in Z.split(5):
        accumulator.update(rows)
    return accumulator.factor(scale, unit)


every_method = pytest.mark.parametrize("method", [qr, cholesky, blocked, blocks, gram, tall_qr])
