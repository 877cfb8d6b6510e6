"""The factorisations at the widths of BERT-base, against scipy on the whole matrix."""

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

from statprune.linalg.gram import Gram
from statprune.linalg.tall_qr import TallQR

pytestmark = pytest.mark.audit

ROWS = 6000


def activations(columns: int, seed: int) -> Tensor:
    """Correlated columns with a spectrum that falls by six orders of magnitude, as activations have."""
    generator = torch.Generator().manual_seed(seed)
    factors = torch.randn(ROWS, columns, generator=generator, dtype=torch.float64)
    mix = torch.randn(columns, columns, generator=generator, dtype=torch.float64)
    return factors * torch.logspace(0, -6, columns, dtype=torch.float64) @ mix


@pytest.mark.parametrize("make", [Gram, TallQR])
def test_neurons_of_bert_base(make: type[Gram] | type[TallQR]) -> None:
    columns, count = 3072, 1536
    Z = activations(columns, 1)
    scale = torch.linspace(0.5, 2, columns, dtype=torch.float64)
    seen = make(columns)
    for rows in Z.split(1000):
        seen.update(rows)
    factor = seen.factor(scale=scale)
    R, pivots = scipy.linalg.qr((Z * scale).numpy(), mode="r", pivoting=True)
    # The later pivots are nearly tied; those that carry the energy are the same.
    assert factor.order[:200].tolist() == pivots[:200].tolist()
    norms = np.abs(np.diag(R))
    np.testing.assert_allclose(factor.pivot_norms()[:1000].numpy(), norms[:1000], rtol=1e-5)
    part = factor.interpolation(count)
    error = torch.linalg.norm((Z - Z[:, part.kept_columns] @ part.T) * scale)
    assert float(error) == pytest.approx(np.linalg.norm(R[count:columns, count:]), rel=1e-3)
    assert float(factor.errors()[count]) == pytest.approx(float(error), rel=1e-3)


@pytest.mark.parametrize("make", [Gram, TallQR])
def test_heads_of_bert_base(make: type[Gram] | type[TallQR]) -> None:
    heads, width, count = 12, 64, 6
    Z = activations(heads * width, 2)
    seen = make(heads * width)
    seen.update(Z)
    factor = seen.factor(unit=width)
    flat = Z.reshape(ROWS, heads, width).transpose(0, 1).reshape(heads, -1).T.numpy()
    _, order = scipy.linalg.qr(flat, mode="r", pivoting=True)
    assert factor.order.tolist() == order.tolist()
    part = factor.interpolation(count)
    best = torch.linalg.lstsq(Z[:, part.kept_columns], Z).solution
    torch.testing.assert_close(
        Z[:, part.kept_columns] @ part.T, Z[:, part.kept_columns] @ best, atol=1e-5, rtol=0
    )
