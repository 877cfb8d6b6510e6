"""Pivoted Cholesky of a Gram matrix against LAPACK, against pivoted QR and against brute force."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matrices import checked, flattened, of_rank, random
from torch import Tensor

from statprune.errors import NonFiniteError, NumericalError
from statprune.linalg import pivoted_cholesky
from statprune.linalg.interpolative import by_pivoted_qr
from statprune.linalg.pivoted_cholesky import by_pivoted_cholesky

seeds = st.integers(0, 2**31)


@given(m=st.integers(1, 20), rank=st.integers(1, 20), panel=st.sampled_from([1, 3, 64]), seed=seeds)
@checked
def test_torch_gives_what_lapack_gives(m: int, rank: int, panel: int, seed: int) -> None:
    Z = of_rank(40, m, min(rank, m), seed)
    G, tolerance = Z.T @ Z, 1e-10
    order, R = pivoted_cholesky._by_lapack(G.clone(), tolerance)
    own_order, own = pivoted_cholesky._blocked(G, tolerance, panel)
    assert own_order.tolist() == order.tolist()
    assert own.shape == (min(rank, m), m)
    torch.testing.assert_close(own, R, rtol=0, atol=1e-8)
    assert torch.equal(own, own.triu())


def test_torch_gives_what_lapack_gives_in_float32() -> None:
    G = (random(200, 70, 1).T @ random(200, 70, 1)).float()
    order, R = pivoted_cholesky._by_lapack(G.clone(), 1e-5)
    own_order, own = pivoted_cholesky._blocked(G, 1e-5)
    assert own.dtype == torch.float32
    assert own_order.tolist() == order.tolist()
    torch.testing.assert_close(own, R, rtol=0, atol=1e-4)


@given(n=st.integers(1, 40), units=st.integers(1, 8), unit=st.integers(1, 3), seed=seeds)
@checked
def test_gram_and_columns_give_the_same_factor(n: int, units: int, unit: int, seed: int) -> None:
    m = units * unit
    Z, scale = random(n, m, seed), random(1, m, seed + 1)[0].abs() + 0.1
    by_qr = by_pivoted_qr(Z, scale=scale, unit=unit)
    factor = by_pivoted_cholesky(Z.T @ Z, scale=scale, unit=unit)
    assert factor.order.tolist() == by_qr.order.tolist()
    assert factor.rank == by_qr.rank
    torch.testing.assert_close(factor.errors(), by_qr.errors(), rtol=0, atol=1e-7)
    for k in range(units + 1):
        # A square, nearly singular triangle can lose half the digits: the price of squaring.
        expected = by_qr.interpolation(k)
        tolerance = 1e-13 * expected.condition**2 + 1e-9
        torch.testing.assert_close(factor.interpolation(k).T, expected.T, rtol=0, atol=tolerance)


@given(units=st.integers(2, 8), unit=st.integers(2, 4), seed=seeds)
@checked
def test_trace_matrix_is_the_gram_of_flattened_units(units: int, unit: int, seed: int) -> None:
    Z = random(30, units * unit, seed)
    flat = flattened(Z, unit)
    expected = by_pivoted_cholesky(flat.T @ flat).order
    assert by_pivoted_cholesky(Z.T @ Z, unit=unit).order.tolist() == expected.tolist()


def greedy_by_brute_force(Z: Tensor, unit: int) -> list[int]:
    """At each step the unit whose columns have most energy outside the span of the units taken."""
    order: list[int] = []
    residual = Z
    while len(order) < Z.shape[1] // unit:
        energy = residual.square().sum(dim=0).view(-1, unit).sum(dim=1)
        energy[order] = -1
        order.append(int(energy.argmax()))
        columns = torch.tensor(order)[:, None] * unit + torch.arange(unit)
        Q, _ = torch.linalg.qr(Z[:, columns.flatten()])
        residual = Z - Q @ (Q.T @ Z)
    return order


@given(units=st.integers(2, 6), unit=st.integers(1, 4), seed=seeds)
@checked
def test_pivoting_on_blocks_takes_the_largest_remainder(units: int, unit: int, seed: int) -> None:
    Z = random(40, units * unit, seed)
    factor = by_pivoted_cholesky(Z.T @ Z, unit=unit, pivot_blocks=True)
    assert factor.order.tolist() == greedy_by_brute_force(Z, unit)


def test_pivoting_on_blocks_is_another_method() -> None:
    different = 0
    for seed in range(60):
        Z = random(60, 24, seed)
        G = Z.T @ Z
        published = by_pivoted_cholesky(G, unit=3)
        blocks = by_pivoted_cholesky(G, unit=3, pivot_blocks=True)
        assert published.order[0] == blocks.order[0]
        different += published.order[:4].sort().values.tolist() != blocks.order[:4].sort().values.tolist()
    assert 5 < different < 60


def test_rtol_decides_what_counts_as_zero() -> None:
    G = torch.diag(torch.tensor([1.0, 1e-6, 1e-12, 1e-18], dtype=torch.float64))
    for unit, blocks in ((1, False), (2, False), (2, True)):
        ranks = [
            by_pivoted_cholesky(G, rtol=rtol, unit=unit, pivot_blocks=blocks).rank
            for rtol in (0, 1e-14, 1e-12, 1e-2)
        ]
        assert ranks == [4, 3, 2, 1]
    assert by_pivoted_cholesky(G).rank == 3


def test_the_unpivoted_path_and_the_unit_by_unit_path_agree() -> None:
    Z = random(50, 12, 3)
    G = Z.T @ Z
    fast = by_pivoted_cholesky(G, unit=3)
    order, columns, pivots, R = pivoted_cholesky._unit_by_unit(G, 3, 1e-12, fast.order)
    assert order.tolist() == fast.order.tolist()
    assert pivots.tolist() == list(range(12))
    assert (columns // 3).tolist() == (fast.columns // 3).tolist()
    torch.testing.assert_close(R.T @ R, G[columns[:, None], columns], rtol=0, atol=1e-10)
    for i in range(0, 12, 3):
        assert float(R[i:].norm()) == pytest.approx(float(fast.R[i:].norm()))


def test_input_is_left_alone() -> None:
    Z = of_rank(20, 6, 4, 0)
    G = Z.T @ Z
    before = G.clone()
    by_pivoted_cholesky(G)
    by_pivoted_cholesky(G, unit=2)
    pivoted_cholesky._blocked(G, 1e-10)
    assert torch.equal(G, before)


def test_unusable_input_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3\); a Gram matrix is square"):
        by_pivoted_cholesky(torch.ones(2, 3))
    with pytest.raises(TypeError, match=r"torch\.bfloat16"):
        by_pivoted_cholesky(torch.eye(2, dtype=torch.bfloat16))
    with pytest.raises(ValueError, match="3 columns are not a whole"):
        by_pivoted_cholesky(torch.eye(3), unit=2)
    with pytest.raises(NumericalError, match=r"G: 2 of 3 diagonal entries are negative \(least -4.0e\+00\)"):
        by_pivoted_cholesky(torch.diag(torch.tensor([1.0, -4.0, -1.0])))
    with pytest.raises(NonFiniteError, match="G times scale: 1 of 4"):
        by_pivoted_cholesky(torch.eye(2) * 1e38, scale=torch.tensor([1.0, 1e10]))


def test_units_without_energy_come_last_however_small_the_others() -> None:
    Z = random(40, 12, 8)
    Z[:, 0:3] = 0
    for size in (1.0, 1e-3):
        factor = by_pivoted_cholesky((size * Z).T @ (size * Z), unit=3, pivot_blocks=True)
        assert int(factor.order[-1]) == 0
