"""What every factorisation of Z D must satisfy, however Z was seen."""

from __future__ import annotations

import pytest
import scipy.linalg
import torch
from hypothesis import given
from hypothesis import strategies as st
from matrices import checked_by_method, damaged, direct_error, of_rank, random
from methods import Method, every_method
from torch import Tensor

from statprune.errors import NonFiniteError
from statprune.linalg.factor import Factor
from statprune.linalg.interpolative import by_pivoted_qr
from statprune.linalg.pivoted_cholesky import by_pivoted_cholesky

shapes = given(
    n=st.integers(1, 40), units=st.integers(1, 7), unit=st.integers(1, 4), seed=st.integers(0, 2**31)
)
# A Gram matrix resolves pivots to sqrt(m eps) of the largest; all matrices here have norms of order one.
TOLERANCE = 1e-6


def weights(m: int, seed: int) -> Tensor:
    """W (3, m) with a zero column."""
    W = random(3, m, seed + 7)
    W[:, seed % m] = 0
    return W


def assert_well_formed(factor: Factor, Z: Tensor) -> None:
    m, unit = Z.shape[1], factor.unit
    assert sorted(factor.columns.tolist()) == list(range(m))
    assert (factor.columns.view(-1, unit) // unit == factor.order[:, None]).all()
    assert factor.pivots.tolist() == sorted(set(factor.pivots.tolist()))
    assert factor.R.shape == (factor.rank, m)
    for row, pivot in zip(factor.R, factor.pivots.tolist(), strict=True):
        assert row[pivot] > 0
        assert (row[:pivot] == 0).all()
    scaled = (Z * factor.scale)[:, factor.columns]
    torch.testing.assert_close(factor.R.T @ factor.R, scaled.T @ scaled, rtol=0, atol=1e-10)


@every_method
@shapes
@checked_by_method
def test_triangle_has_the_gram_of_the_scaled_columns(
    method: Method, n: int, units: int, unit: int, seed: int
) -> None:
    Z = damaged(n, units, unit, seed)
    factor = method(Z, weights(units * unit, seed).norm(dim=0), unit)
    assert factor.units == units
    assert_well_formed(factor, Z)


@every_method
@shapes
@checked_by_method
def test_errors_are_those_of_the_interpolation(
    method: Method, n: int, units: int, unit: int, seed: int
) -> None:
    Z = damaged(n, units, unit, seed)
    W = weights(units * unit, seed)
    scale = W.norm(dim=0)
    factor = method(Z, scale, unit)
    scaled, weighted = factor.errors(), factor.errors(W)
    for errors in (scaled, weighted):
        assert errors.shape == (units + 1,)
        assert errors[units] == 0
        assert (errors.diff() <= 0).all()
    assert float(scaled[0]) == pytest.approx(float((Z * scale).norm()), abs=1e-9)
    assert float(weighted[0]) == pytest.approx(float((Z @ W.T).norm()), abs=1e-9)
    for k in range(units + 1):
        kept = factor.interpolation(k)
        assert torch.isfinite(kept.T).all()
        direct = direct_error(Z, kept.kept_columns, kept.T, scale.diag())
        assert float(scaled[k]) == pytest.approx(direct, abs=TOLERANCE)
        direct = direct_error(Z, kept.kept_columns, kept.T, W.T)
        assert float(weighted[k]) == pytest.approx(direct, abs=TOLERANCE)


@every_method
@shapes
@checked_by_method
def test_no_other_interpolation_from_the_same_columns_is_better(
    method: Method, n: int, units: int, unit: int, seed: int
) -> None:
    Z = damaged(n, units, unit, seed)
    factor = method(Z, None, unit)
    for k in range(units + 1):
        columns = factor.interpolation(k).kept_columns
        span = scipy.linalg.orth(Z[:, columns].numpy(), rcond=1e-9) if k else Z.new_zeros(n, 0).numpy()
        best = Z - torch.from_numpy(span @ (span.T @ Z.numpy()))
        assert float(factor.errors()[k]) == pytest.approx(float(best.norm()), abs=TOLERANCE)


@every_method
@shapes
@checked_by_method
def test_kept_columns_stay_themselves(method: Method, n: int, units: int, unit: int, seed: int) -> None:
    Z = damaged(n, units, unit, seed)
    factor = method(Z, weights(units * unit, seed).norm(dim=0), unit)
    for k in range(units + 1):
        kept = factor.interpolation(k)
        assert kept.kept.tolist() == sorted(factor.order[:k].tolist())
        assert kept.kept_columns.tolist() == [u * unit + i for u in kept.kept.tolist() for i in range(unit)]
        assert kept.T.shape == (k * unit, units * unit)
        assert torch.equal(kept.T[:, kept.kept_columns], torch.eye(k * unit, dtype=Z.dtype))
        assert kept.rank <= min(k * unit, factor.rank)
        assert kept.condition >= 1


@every_method
@given(units=st.integers(2, 6), unit=st.integers(1, 3), seed=st.integers(0, 2**31), extra=st.integers(0, 20))
@checked_by_method
def test_interpolation_is_least_squares_at_full_rank(
    method: Method, units: int, unit: int, seed: int, extra: int
) -> None:
    m = units * unit
    Z = random(2 * m + extra, m, seed)
    factor = method(Z, random(1, m, seed + 1)[0].abs() + 0.1, unit)
    assert factor.rank == m
    for k in range(1, units):
        kept = factor.interpolation(k)
        expected, *_ = scipy.linalg.lstsq(Z[:, kept.kept_columns].numpy(), Z.numpy())
        torch.testing.assert_close(kept.T, torch.from_numpy(expected), rtol=0, atol=1e-8)


@every_method
@given(m=st.integers(2, 12), seed=st.integers(0, 2**31), data=st.data())
@checked_by_method
def test_as_many_columns_as_the_rank_are_exact(
    method: Method, m: int, seed: int, data: st.DataObject
) -> None:
    rank = data.draw(st.integers(1, m - 1))
    Z = of_rank(30, m, rank, seed)
    factor = method(Z, None, 1)
    assert factor.rank == rank
    for k in range(rank, m + 1):
        kept = factor.interpolation(k)
        assert kept.rank == rank
        assert direct_error(Z, kept.kept_columns, kept.T, torch.eye(m, dtype=Z.dtype)) < TOLERANCE
    assert float(factor.errors()[rank - 1]) > 1e-3 * float(factor.errors()[0])


@every_method
def test_zero_scale_is_never_divided_by(method: Method) -> None:
    Z = random(30, 6, 3)
    scale = torch.tensor([1.0, 0.0, 2.0, 0.0, 0.5, 1.0], dtype=Z.dtype)
    factor = method(Z, scale, 1)
    assert factor.order[4:].tolist() == [1, 3]
    assert factor.rank == 4
    few, most = factor.interpolation(3), factor.interpolation(5)
    assert (few.T[:, [1, 3]] == 0).all()
    assert (most.T[:, 3] == 0).all()
    assert most.T[1].tolist() == [0, 1, 0, 0, 0, 0]


@every_method
@pytest.mark.parametrize("unit", [1, 2])
@pytest.mark.parametrize("n", [1, 3, 9])
def test_all_zero_columns_have_rank_zero(method: Method, unit: int, n: int) -> None:
    factor = method(torch.zeros(n, 4, dtype=torch.float64), None, unit)
    assert factor.rank == 0
    assert factor.order.tolist() == list(range(4 // unit))
    assert factor.errors().tolist() == [0.0] * (4 // unit + 1)
    kept = factor.interpolation(1)
    assert kept.T.tolist() == torch.eye(4)[:unit].tolist()
    assert (kept.condition, kept.rank) == (1.0, 0)


@every_method
def test_scales_too_small_to_divide_by_are_zero(method: Method) -> None:
    scale = torch.tensor([1.0, 1e-320, 1.0], dtype=torch.float64)
    factor = method(random(9, 3, 1), scale, 1)
    assert factor.scale.tolist() == [1, 0, 1]
    assert (factor.interpolation(2).T[:, 1] == 0).all()


@every_method
@pytest.mark.parametrize("unit", [1, 3])
def test_units_without_energy_left_follow_in_index_order(method: Method, unit: int) -> None:
    Z = random(40, 9 * unit, 6)
    copies = torch.tensor([4, 2, 7, 2, 4, 7, 4, 7, 2])[:, None] * unit + torch.arange(unit)
    order = method(Z[:, copies.flatten()], None, unit).order.tolist()
    assert order[3:] == sorted(order[3:])
    assert order != sorted(order)


@every_method
def test_one_column(method: Method) -> None:
    factor = method(torch.tensor([[-3.0], [4.0]], dtype=torch.float64), None, 1)
    assert factor.R.item() == pytest.approx(5)
    assert factor.errors().tolist() == [pytest.approx(5), 0]
    assert factor.interpolation(1).T.tolist() == [[1]]


@every_method
def test_one_row(method: Method) -> None:
    factor = method(torch.tensor([[1.0, -4.0, 2.0, 0.0]], dtype=torch.float64), None, 1)
    assert factor.order[0] == 1
    assert factor.rank == 1
    torch.testing.assert_close(
        factor.interpolation(1).T, torch.tensor([[-0.25, 1.0, -0.5, 0.0]], dtype=torch.float64)
    )


@every_method
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_nonfinite_input_is_refused_with_its_count(method: Method, bad: float) -> None:
    Z = random(5, 4, 0)
    Z[2, 1] = bad
    with pytest.raises(NonFiniteError, match=r"[1-9]\d* of \d+ entries"):
        method(Z, None, 1)


@every_method
def test_pivot_norms_are_the_drops_of_the_squared_error(method: Method) -> None:
    Z = of_rank(30, 6, 4, 1)
    factor = method(Z, None, 1)
    norms = factor.pivot_norms()
    assert norms.shape == (6,)
    assert (norms[4:] == 0).all()
    assert (norms.diff() <= 0).all()
    # The distance of the k-th column from the span of the earlier ones, computed without the factor.
    for k in range(1, 4):
        earlier, column = Z[:, factor.order[:k]].numpy(), Z[:, factor.order[k]].numpy()
        coefficients, *_ = scipy.linalg.lstsq(earlier, column)
        assert float(norms[k]) == pytest.approx(float(scipy.linalg.norm(column - earlier @ coefficients)))


def test_pivot_norms_need_single_columns() -> None:
    with pytest.raises(ValueError, match="units here have 2"):
        by_pivoted_qr(random(9, 4, 0), unit=2).pivot_norms()


@pytest.mark.parametrize("count", [-1, 5])
def test_impossible_counts_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"cannot keep {count} of 4"):
        by_pivoted_qr(random(9, 4, 0)).interpolation(count)


def test_weights_of_another_width_or_not_finite_are_refused() -> None:
    factor = by_pivoted_qr(random(9, 4, 0))
    with pytest.raises(ValueError, match=r"\(out, 4\)"):
        factor.errors(torch.ones(2, 3))
    with pytest.raises(NonFiniteError, match="weight: 8 of 8 entries"):
        factor.errors(torch.full((2, 4), torch.nan))


@every_method
@pytest.mark.parametrize("unit", [1, 3])
def test_float32_agrees_with_float64(method: Method, unit: int) -> None:
    Z = random(60, 12, 4)
    fine, coarse = method(Z, None, unit), method(Z.float(), None, unit)
    assert coarse.order.tolist() == fine.order.tolist()
    torch.testing.assert_close(coarse.errors().double(), fine.errors(), rtol=1e-4, atol=1e-4)
    for k in range(1, fine.units):
        torch.testing.assert_close(
            coarse.interpolation(k).T.double(), fine.interpolation(k).T, rtol=0, atol=1e-3
        )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
@every_method
@pytest.mark.parametrize("unit", [1, 3])
def test_an_accelerator_agrees_with_the_host(method: Method, unit: int) -> None:
    Z = damaged(40, 6, unit, 5)
    host, device = method(Z, None, unit), method(Z.cuda(), None, unit)
    assert device.order.tolist() == host.order.tolist()
    torch.testing.assert_close(device.errors().cpu(), host.errors(), rtol=0, atol=1e-9)
    for k in range(host.units + 1):
        torch.testing.assert_close(
            device.interpolation(k).T.cpu(), host.interpolation(k).T, rtol=0, atol=1e-6
        )


@pytest.mark.parametrize("rank", [1100, 700])
def test_errors_of_a_wide_site_are_those_of_the_whole_product(rank: int) -> None:
    """More rows than one product takes, and columns that depend on others."""
    generator = torch.Generator().manual_seed(0)
    Z = torch.randn(1300, rank, generator=generator, dtype=torch.float64)
    Z = torch.cat([Z, Z[:, : 1100 - rank]], dim=1)
    W = torch.randn(5, 1100, generator=generator, dtype=torch.float64)
    factor = by_pivoted_cholesky(Z.T @ Z)
    rows = factor.R @ W[:, factor.columns].T
    for errors, of in ((factor.errors(W), rows), (factor.errors(), factor.R)):
        for count in (0, 300, 1000):
            first = int(torch.searchsorted(factor.pivots, count))
            assert float(errors[count]) == pytest.approx(float(of[first:].norm()), rel=1e-9, abs=1e-9)
