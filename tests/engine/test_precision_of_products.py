"""Many float32 activations are multiplied in float32; few, or float64, in float64."""

import pytest
import torch

from statprune.engine.backends import ROWS_FOR_FLOAT32, maker
from statprune.linalg.gram import Gram

COLUMNS = 24


def summed(dtype: torch.dtype, tokens: int, rows: torch.Tensor) -> torch.Tensor:
    make = maker(
        "gram",
        samples=8,
        tokens=tokens,
        generator=torch.Generator().manual_seed(0),
        device=torch.device("cpu"),
        dtype=dtype,
    )
    gram = make(COLUMNS)
    gram.update(rows)
    assert isinstance(gram, Gram)
    return gram.matrix


@pytest.mark.parametrize(
    ("dtype", "tokens", "exact"),
    [
        (torch.float32, ROWS_FOR_FLOAT32 * COLUMNS, False),
        (torch.bfloat16, ROWS_FOR_FLOAT32 * COLUMNS, False),
        (torch.float32, ROWS_FOR_FLOAT32 * COLUMNS - 1, True),
        (torch.float64, ROWS_FOR_FLOAT32 * COLUMNS, True),
    ],
)
def test_products_are_as_fine_as_they_need_to_be(dtype: torch.dtype, tokens: int, exact: bool) -> None:
    rows = torch.randn(ROWS_FOR_FLOAT32 * COLUMNS, COLUMNS, generator=torch.Generator().manual_seed(1))
    expected = rows.double().T @ rows.double()
    norms = rows.double().norm(dim=0)
    off = ((summed(dtype, tokens, rows) - expected).abs() / torch.outer(norms, norms)).max()
    assert off <= (1e-14 if exact else 1e-6)
    assert (off > 1e-12) != exact
