"""Factors of data of any size are the same factors."""

from __future__ import annotations

import pytest
import torch
from matrices import damaged
from methods import Method, every_method


@every_method
@pytest.mark.parametrize("unit", [1, 3])
def test_the_rank_does_not_depend_on_the_size_of_numbers(method: Method, unit: int) -> None:
    Z = damaged(50, 4, 3, 6)
    wanted = method(Z, None, unit)
    assert wanted.rank < 12
    for size in (2.0**-20, 2.0**20):
        found = method(size * Z, None, unit)
        assert found.rank == wanted.rank
        assert torch.equal(found.order, wanted.order)
        torch.testing.assert_close(found.R, size * wanted.R, rtol=1e-9, atol=1e-9 * size)
