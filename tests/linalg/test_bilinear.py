"""The refit of a carrier against the least-squares problem written out."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from statprune.linalg import bilinear
from statprune.linalg.bilinear import Gated, Mixed, Reading, refit_producer

ROWS, INPUTS, OUTPUTS = 2300, 6, 5


def gated(generator: torch.Generator, dtype: torch.dtype = torch.float64) -> Reading:
    X = torch.randn(ROWS, INPUTS, generator=generator, dtype=torch.float64)
    S = torch.rand(ROWS, 7, generator=generator, dtype=torch.float64)
    return Gated(X.to(dtype), S.to(dtype))


def mixed(generator: torch.Generator, dtype: torch.dtype = torch.float64) -> Reading:
    return Mixed(torch.randn(4, ROWS, INPUTS, generator=generator, dtype=torch.float64).to(dtype), group=2)


MAKERS = {"gated": (gated, 7, 7), "mixed": (mixed, 12, 6)}
"""A reading, its columns (heads of width 3), and the rows of D (two units of width 3)."""


def written_out(reading: Reading, B: Tensor, rows: int) -> np.ndarray:
    """The matrix that takes the entries of D to those of A(D) B."""
    columns = []
    for index in range(rows * INPUTS):
        D = torch.zeros(rows * INPUTS, dtype=torch.float64)
        D[index] = 1
        if isinstance(reading, Gated):
            Z = torch.einsum("nk,nd,kd->nk", reading.S, reading.X, D.reshape(rows, INPUTS))
        else:
            assert isinstance(reading, Mixed)
            units = D.reshape(2, 3, INPUTS)
            Z = torch.cat([reading.F[head] @ units[head // 2].T for head in range(4)], dim=1)
        columns.append((Z @ B).flatten().numpy())
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("kind", list(MAKERS))
def test_rows_may_be_worked_on_in_any_pieces(
    monkeypatch: pytest.MonkeyPatch, kind: str, constant: bool
) -> None:
    make, columns, _ = MAKERS[kind]
    generator = torch.Generator().manual_seed(3)
    reading = make(generator)
    B = torch.randn(columns, OUTPUTS, generator=generator, dtype=torch.float64)
    missing = 3 + torch.randn(ROWS, OUTPUTS, generator=generator, dtype=torch.float64)
    found = []
    for rows in (ROWS, 300):
        monkeypatch.setattr(bilinear, "ROWS", rows)
        found.append(refit_producer(reading, B, missing, constant=constant, iterations=5))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("kind", list(MAKERS))
@pytest.mark.parametrize("seed", range(4))
def test_many_iterations_solve_it(kind: str, constant: bool, seed: int) -> None:
    make, columns, rows = MAKERS[kind]
    generator = torch.Generator().manual_seed(seed)
    reading = make(generator)
    B = torch.randn(columns, OUTPUTS, generator=generator, dtype=torch.float64)
    missing = 3 + torch.randn(ROWS, OUTPUTS, generator=generator, dtype=torch.float64)
    found = refit_producer(reading, B, missing, constant=constant, iterations=400)
    A = written_out(reading, B, rows)
    y = missing.numpy()
    if constant:
        A = (A.reshape(ROWS, OUTPUTS, -1) - A.reshape(ROWS, OUTPUTS, -1).mean(axis=0)).reshape(A.shape)
        y = y - y.mean(axis=0)
    wanted = np.linalg.lstsq(A, y.flatten(), rcond=None)[0]
    error = [np.square(y.flatten() - A @ D).sum() for D in (found.numpy().flatten(), wanted)]
    assert error[0] <= error[1] * (1 + 1e-9)


@pytest.mark.parametrize("kind", list(MAKERS))
def test_every_iteration_lowers_the_error(kind: str) -> None:
    make, columns, rows = MAKERS[kind]
    generator = torch.Generator().manual_seed(5)
    reading = make(generator)
    B = torch.randn(columns, OUTPUTS, generator=generator, dtype=torch.float64)
    missing = torch.randn(ROWS, OUTPUTS, generator=generator, dtype=torch.float64)
    A = written_out(reading, B, rows)
    y = missing.numpy().flatten()
    errors = [
        np.square(y - A @ refit_producer(reading, B, missing, iterations=k).numpy().flatten()).sum()
        for k in range(6)
    ]
    assert all(after < before for before, after in pairwise(errors))
    assert errors[0] == pytest.approx(float(missing.square().sum()))


def test_a_row_that_all_heads_heed_costs_float32_no_digits() -> None:
    """As a first token does: what is mixed is nearly the same everywhere, its spread a thousandth of it."""
    generator = torch.Generator().manual_seed(10)
    F = torch.randn(4, ROWS, INPUTS, generator=generator)
    reading = Mixed(1000 * torch.randn(INPUTS, generator=generator) + F, group=2)
    B = torch.randn(12, OUTPUTS, generator=generator)
    missing = torch.randn(ROWS, OUTPUTS, generator=generator)
    every = slice(0, ROWS)
    errors = [
        float(
            (missing - reading.products(refit_producer(reading, B, missing, iterations=k), every) @ B).norm()
        )
        for k in (0, 1, 2, 5, 10)
    ]
    assert all(after < before * (1 + 1e-6) for before, after in pairwise(errors))


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("kind", list(MAKERS))
def test_half_precision_products_come_near(kind: str, constant: bool) -> None:
    make, columns, _ = MAKERS[kind]
    fine, coarse = (
        make(torch.Generator().manual_seed(6), dtype) for dtype in (torch.float64, torch.bfloat16)
    )
    B = torch.randn(columns, OUTPUTS, generator=torch.Generator().manual_seed(7))
    missing = torch.randn(ROWS, OUTPUTS, generator=torch.Generator().manual_seed(8))
    wanted = refit_producer(fine, B.double(), missing.double(), constant=constant)
    found = refit_producer(coarse, B, missing, constant=constant)
    assert found.dtype == torch.float32
    assert float((found - wanted).norm() / wanted.norm()) < 0.05


def test_the_two_products_are_transposes_of_each_other() -> None:
    for make, columns, rows in MAKERS.values():
        generator = torch.Generator().manual_seed(9)
        reading = make(generator)
        D = torch.randn(rows, INPUTS, generator=generator, dtype=torch.float64)
        R = torch.randn(ROWS, columns, generator=generator, dtype=torch.float64)
        every = slice(0, ROWS)
        torch.testing.assert_close(
            (reading.products(D, every) * R).sum(), (D * reading.transposed(R, every)).sum()
        )


@pytest.mark.parametrize("kind", list(MAKERS))
def test_one_row_for_all_of_them(kind: str) -> None:
    make, columns, _ = MAKERS[kind]
    reading = make(torch.Generator().manual_seed(11))
    row = torch.randn(columns, generator=torch.Generator().manual_seed(12), dtype=torch.float64)
    wanted = reading.transposed(row.expand(ROWS, -1), slice(0, ROWS))
    torch.testing.assert_close(reading.of_one(row), wanted)


def test_the_preconditioner_knows_each_units_readers() -> None:
    """Written out: of a unit the factors' mean square times that of its row of B; of heads, sums."""
    for make, columns, _ in MAKERS.values():
        reading = make(torch.Generator().manual_seed(13))
        B = torch.randn(columns, OUTPUTS, generator=torch.Generator().manual_seed(14), dtype=torch.float64)
        found, products = reading.blocks(B, slice(0, 100)), (B @ B.T).numpy()
        if isinstance(reading, Gated):
            S = reading.S[:100].numpy()
            wanted = np.array([[[np.mean(S[:, u] ** 2) * products[u, u]]] for u in range(columns)])
        else:
            heads = [products[3 * h : 3 * h + 3, 3 * h : 3 * h + 3] for h in range(4)]
            wanted = np.stack([heads[0] + heads[1], heads[2] + heads[3]])
        np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-12)


def test_the_size_of_numbers_does_not_matter() -> None:
    reading = gated(torch.Generator().manual_seed(15))
    assert isinstance(reading, Gated)
    B = torch.randn(7, OUTPUTS, generator=torch.Generator().manual_seed(16), dtype=torch.float64)
    missing = torch.randn(ROWS, OUTPUTS, generator=torch.Generator().manual_seed(17), dtype=torch.float64)
    small = Gated(reading.X * 2.0**-20, reading.S)
    wanted, found = refit_producer(reading, B, missing), refit_producer(small, B, missing)
    torch.testing.assert_close(found * 2.0**-20, wanted)


def test_nothing_missing_changes_nothing() -> None:
    reading = gated(torch.Generator().manual_seed(0))
    found = refit_producer(reading, torch.ones(7, OUTPUTS, dtype=torch.float64), torch.zeros(ROWS, OUTPUTS))
    assert not bool(found.any())
