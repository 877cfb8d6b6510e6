"""A row of weight three is the row three times: sums, moments, refits of producers, carriers' consumers."""

import pytest
import torch
from torch import Tensor

from statprune.linalg.bilinear import Gated, Mixed, refit_producer
from statprune.linalg.gram import CrossGram, Gram
from statprune.linalg.moments import MomentSum
from statprune.linalg.row_weights import weighted, weighted_gram, weighted_mean, weighted_sum

ROWS, TIMES = 40, torch.tensor([1, 3, 2, 5]).repeat(10)


def rows(columns: int, seed: int, *, before: int | None = None) -> Tensor:
    size = (ROWS, columns) if before is None else (before, ROWS, columns)
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.3


def repeated(X: Tensor, dim: int = 0) -> Tensor:
    return X.repeat_interleave(TIMES, dim=dim)


def test_sums() -> None:
    X = rows(5, 1)
    torch.testing.assert_close(weighted_sum(X, TIMES), repeated(X).sum(dim=0))
    torch.testing.assert_close(weighted_mean(X, TIMES), repeated(X).mean(dim=0))
    torch.testing.assert_close(weighted_gram(X, TIMES), repeated(X).T @ repeated(X))
    torch.testing.assert_close(weighted(X, TIMES).sum(dim=0), repeated(X).sum(dim=0))
    for each in (weighted_sum, weighted_mean, weighted_gram):
        torch.testing.assert_close(each(X, None), each(X, torch.ones(ROWS)))
    gram, cross = Gram(5), CrossGram(5, 3)
    gram.update(X, TIMES.double())
    cross.update(X, rows(3, 2), TIMES.double())
    torch.testing.assert_close(gram.matrix, repeated(X).T @ repeated(X))
    torch.testing.assert_close(cross.matrix, repeated(X).T @ repeated(rows(3, 2)))


@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("pieces", [1, 3])
def test_moments(constant: bool, pieces: int) -> None:
    Z, Y = rows(5, 1), rows(3, 2)
    plain, found = (MomentSum(5, 3, constant=constant, products=torch.float64) for _ in range(2))
    plain.update(repeated(Z), repeated(Y))
    parts = [MomentSum(5, 3, constant=constant, products=torch.float64) for _ in range(pieces)]
    for number, each in enumerate(parts):
        some = slice(number, None, pieces)
        each.update(Z[some], Y[some], TIMES[some].double())
        found.merge(each)
    wanted, seen = plain.moments(), found.moments()
    for name in ("G", "C", "mean_input", "mean_target"):
        torch.testing.assert_close(getattr(seen, name), getattr(wanted, name))
    assert seen.energy == pytest.approx(wanted.energy)
    assert (seen.rows, seen.weight) == (ROWS, wanted.weight)


@pytest.mark.parametrize("kind", ["gated", "mixed"])
@pytest.mark.parametrize("constant", [True, False])
def test_a_producer(kind: str, constant: bool) -> None:
    """What conjugate gradients end in; of a gate they begin otherwise, its slopes are not weighted there."""
    if kind == "gated":
        X, S = rows(4, 3), rows(6, 6)
        own, twice = Gated(X, S, TIMES), Gated(repeated(X), repeated(S))
    else:
        F = rows(4, 3, before=3)
        own, twice = Mixed(F, 1, TIMES), Mixed(repeated(F, dim=1))
    B, missing = rows(5, 4)[:6], rows(5, 5)
    found = refit_producer(own, B, missing, constant=constant, iterations=200)
    wanted = refit_producer(twice, B, repeated(missing), constant=constant, iterations=200)
    assert float(wanted.abs().max()) > 0.01
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-7)


def test_a_weight_for_each_row() -> None:
    with pytest.raises(ValueError, match=r"row_weights has shape \(3,\) for 40 rows"):
        MomentSum(5, 3, constant=True).update(rows(5, 1), rows(3, 2), torch.ones(3))


@pytest.mark.parametrize("size", [15.0, 1e4])
def test_large_rows_that_hardly_count_cost_no_digits(size: float) -> None:
    """Products in float32: one row in 64 is larger by `size`, and counts as many times less, squared."""
    generator = torch.Generator().manual_seed(0)
    Z, Y = (torch.randn(4096, columns, generator=generator) + 3 for columns in (8, 4))
    large = torch.arange(4096) % 64 == 0
    row_weights = torch.where(large, size**-2, 1.0)
    for each in (Z, Y):
        each[large] *= size
    sums = MomentSum(8, 4, constant=True)
    sums.update(Z, Y, row_weights)
    found, w = sums.moments(), row_weights.double()
    z, y = ((each.double() - w @ each.double() / w.sum()) * w.sqrt()[:, None] for each in (Z, Y))
    for moments, wanted in ((found.G, z.T @ z), (found.C, z.T @ y)):
        assert float((moments - wanted).norm() / wanted.norm()) < 2e-5


@pytest.mark.parametrize("size", [1.0, 15.0, 100.0])
def test_few_steps_do_where_some_rows_are_large(size: float) -> None:
    """Of the weighted error what is left after five steps, where half of the units are large at some rows."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    X, S, B, large = normal(8192, 32), normal(8192, 48).abs(), normal(48, 24), torch.arange(8192) % 64 == 0
    S[large, :24] *= size
    row_weights = torch.where(large, size**-2, 1.0).double()
    missing = (S * (X @ (0.1 * normal(48, 32)).T)) @ B + 0.3 * normal(8192, 24)
    D = refit_producer(Gated(X, S, row_weights), B, missing)
    left = missing - (S * (X @ D.T)) @ B
    assert row_weights @ left.square().sum(dim=1) < 0.012 * (row_weights @ missing.square().sum(dim=1))
