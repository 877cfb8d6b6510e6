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
