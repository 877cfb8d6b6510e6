"""Column-pivoted QR against scipy and against the theory."""

from __future__ import annotations

import pytest
import scipy.linalg
import scipy.linalg.interpolative as published
import torch
from hypothesis import given
from hypothesis import strategies as st
from matrices import checked, damaged, flattened, of_rank, random

from statprune.errors import NonFiniteError
from statprune.linalg import interpolative
from statprune.linalg.interpolative import by_pivoted_qr

seeds = st.integers(0, 2**31)


@given(n=st.integers(1, 40), m=st.integers(1, 16), seed=seeds)
@checked
def test_order_and_triangle_are_those_of_lapack(n: int, m: int, seed: int) -> None:
    A, scale = random(n, m, seed), random(1, m, seed + 1)[0].abs() + 0.1
    factor = by_pivoted_qr(A, scale=scale)
    R, order = scipy.linalg.qr((A * scale).numpy(), mode="r", pivoting=True)
    rank = min(n, m)
    assert factor.order[:rank].tolist() == order[:rank].tolist()
    assert factor.order[rank:].tolist() == sorted(order[rank:].tolist())
    expected = torch.from_numpy(R[:rank])[:, torch.from_numpy(order).argsort()][:, factor.columns]
    torch.testing.assert_close(factor.R, expected * expected.diagonal().sign()[:, None], rtol=0, atol=1e-10)


@given(m=st.integers(2, 12), seed=seeds, data=st.data())
@checked
def test_interpolation_is_that_of_scipy(m: int, seed: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, m - 1))
    A = random(20, m, seed)
    order, weights = published.interp_decomp(A.numpy(), k, rand=False)
    kept = by_pivoted_qr(A).interpolation(k)
    assert kept.kept.tolist() == sorted(order[:k].tolist())
    rows = torch.from_numpy(order[:k]).argsort()  # scipy keeps the order of the pivots
    expected = torch.from_numpy(weights)[rows]
    torch.testing.assert_close(kept.T[:, torch.from_numpy(order[k:])], expected, rtol=0, atol=1e-9)


@given(n=st.integers(1, 30), m=st.integers(1, 12), seed=seeds)
@checked
def test_errors_lie_between_the_best_possible_and_the_bound(n: int, m: int, seed: int) -> None:
    A = random(n, m, seed)
    errors = by_pivoted_qr(A).errors()
    singular = torch.linalg.svdvals(A).square()
    for k in range(m):
        best = float(singular[k:].sum().sqrt())
        assert float(errors[k]) >= best * (1 - 1e-9)
        # Gu & Eisenstat 1996: strong rank-revealing QR reaches the root, plain pivoting 4^k of it.
        assert float(errors[k]) <= best * (1 + k * (m - k)) ** 0.5 * 4**k + 1e-12


@given(n=st.integers(1, 30), m=st.integers(1, 12), seed=seeds)
@checked
def test_rank_one_reaches_the_best_possible(n: int, m: int, seed: int) -> None:
    A = of_rank(n, m, 1, seed)
    factor = by_pivoted_qr(A)
    assert factor.rank == 1
    assert factor.order[0] == A.norm(dim=0).argmax()
    assert float(factor.errors()[0]) == pytest.approx(float(torch.linalg.svdvals(A)[0]))
    kept = factor.interpolation(1)
    torch.testing.assert_close(A[:, kept.kept_columns] @ kept.T, A, rtol=0, atol=1e-12)


@given(units=st.integers(2, 8), unit=st.integers(2, 4), n=st.integers(2, 30), seed=seeds)
@checked
def test_units_come_in_the_order_of_pivoted_qr_of_flattened_units(
    units: int, unit: int, n: int, seed: int
) -> None:
    A = random(n, units * unit, seed)
    flat = flattened(A, unit)
    _, order = scipy.linalg.qr(flat.numpy(), mode="r", pivoting=True)
    resolved = min(flat.shape)
    assert by_pivoted_qr(A, unit=unit).order[:resolved].tolist() == order[:resolved].tolist()


@given(units=st.integers(1, 6), unit=st.integers(2, 4), seed=seeds)
@checked
def test_both_paths_give_the_same_triangle_at_full_rank(units: int, unit: int, seed: int) -> None:
    m = units * unit
    A = random(m, m, seed)
    fast = by_pivoted_qr(A, unit=unit)
    assert fast.columns.tolist() == [u * unit + i for u in fast.order.tolist() for i in range(unit)]
    in_order = (fast.order[:, None] * unit + torch.arange(unit)).flatten()
    columns, pivots, R = interpolative._unit_by_unit(A[:, in_order], in_order, unit, 1e-13)
    assert (columns // unit).tolist() == (fast.columns // unit).tolist()
    assert pivots.tolist() == list(range(m))
    assert (R.diagonal() > 0).all()
    # Columns inside a unit may differ, and with them its rows; energies of whole units may not.
    ends = torch.arange(0, m, unit)
    for i in ends.tolist():
        assert float(R[i:].norm()) == pytest.approx(float(fast.R[i:].norm()))


def test_a_copied_unit_costs_nothing_and_a_dependent_column_is_found() -> None:
    A = random(40, 12, 2)
    A[:, 3:6] = A[:, 9:12]  # unit 1 copies unit 3
    A[:, 6] = A[:, 0] - 2 * A[:, 1]  # one column of unit 2 hangs on unit 0
    factor = by_pivoted_qr(A, unit=3)
    assert factor.rank == 8
    kept = factor.interpolation(3)
    assert {0, 2} < set(kept.kept.tolist())
    assert kept.rank == 8
    torch.testing.assert_close(A[:, kept.kept_columns] @ kept.T, A, rtol=0, atol=1e-12)


def test_rtol_decides_what_counts_as_zero() -> None:
    A = torch.diag(torch.tensor([1.0, 1e-3, 1e-6, 1e-9], dtype=torch.float64))
    assert [by_pivoted_qr(A, rtol=rtol).rank for rtol in (0, 1e-7, 1e-6, 1e-2)] == [4, 3, 2, 1]
    assert [by_pivoted_qr(A, rtol=rtol, unit=2).rank for rtol in (0, 1e-7, 1e-6, 1e-2)] == [4, 3, 2, 1]
    assert by_pivoted_qr(A.float()).rank == 3


def test_no_rows_are_rank_zero() -> None:
    factor = by_pivoted_qr(torch.zeros(0, 6), unit=2)
    assert (factor.rank, factor.order.tolist()) == (0, [0, 1, 2])
    assert factor.errors().tolist() == [0, 0, 0, 0]


def test_input_is_left_alone() -> None:
    A = damaged(6, 4, 2, 0)
    before = A.clone()
    by_pivoted_qr(A, unit=2)
    by_pivoted_qr(A)
    assert torch.equal(A, before)


def test_unusable_input_is_refused_by_name() -> None:
    A = random(5, 6, 0)
    with pytest.raises(TypeError, match=r"torch\.float16"):
        by_pivoted_qr(A.half())
    with pytest.raises(ValueError, match=r"\(6,\); pass a matrix"):
        by_pivoted_qr(A[0])
    with pytest.raises(ValueError, match="6 columns are not a whole, positive number of units of 4"):
        by_pivoted_qr(A, unit=4)
    with pytest.raises(ValueError, match="0 columns"):
        by_pivoted_qr(A[:, :0])
    with pytest.raises(ValueError, match=r"scale has shape \(5,\).*6 columns"):
        by_pivoted_qr(A, scale=torch.ones(5))
    with pytest.raises(ValueError, match="2 of 6 entries are negative"):
        by_pivoted_qr(A, scale=torch.tensor([1.0, -1, 0, -2, 3, 4]))
    with pytest.raises(NonFiniteError, match="scale: 1 of 6 entries"):
        by_pivoted_qr(A, scale=torch.tensor([1.0, torch.nan, 0, 2, 3, 4]))
    with pytest.raises(NonFiniteError, match="A times scale: 5 of 30"):
        by_pivoted_qr(A.sign() * 1e300, scale=torch.tensor([1.0, 1e10, 0, 2, 3, 4], dtype=A.dtype))


def test_scales_of_many_magnitudes_are_undone() -> None:
    A = random(30, 6, 5)
    scale = torch.logspace(-150, 150, 6, dtype=torch.float64)
    factor = by_pivoted_qr(A, scale=scale, rtol=0)
    assert factor.order.tolist() == [5, 4, 3, 2, 1, 0]
    expected = A[:, 5:].T @ A / A[:, 5].square().sum()  # the projection on the column read most
    torch.testing.assert_close(factor.interpolation(1).T, expected, rtol=1e-10, atol=1e-12)
