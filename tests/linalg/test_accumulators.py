"""Rows seen batch by batch give what all rows seen at once give."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matrices import checked, of_rank, random
from sketches import count, gaussian
from torch import Tensor

from statprune.errors import NonFiniteError
from statprune.linalg.accumulator import Accumulator
from statprune.linalg.gram import CrossGram, Gram
from statprune.linalg.interpolative import by_pivoted_qr
from statprune.linalg.tall_qr import TallQR

WIDTH = 6


def held(accumulator: Accumulator) -> Tensor:
    """The Gram matrix of what an accumulator holds."""
    if isinstance(accumulator, Gram):
        return accumulator.matrix
    rows = accumulator.R if isinstance(accumulator, TallQR) else accumulator.matrix
    return rows.T @ rows


every_accumulator = pytest.mark.parametrize("start", [Gram, TallQR, gaussian, count])


@every_accumulator
@given(n=st.integers(1, 700), seed=st.integers(0, 2**31), data=st.data())
@checked
def test_batches_do_not_matter(
    start: Callable[[int], Accumulator], n: int, seed: int, data: st.DataObject
) -> None:
    Z = random(n, WIDTH, seed)
    sizes = [*data.draw(st.lists(st.integers(0, n), max_size=4)), n]
    whole, parts = start(WIDTH), start(WIDTH)
    whole.update(Z)
    begin = 0
    for size in sizes:
        parts.update(Z[begin : begin + size])
        begin += size
    assert whole.rows == parts.rows == n
    torch.testing.assert_close(held(parts), held(whole), rtol=0, atol=1e-12 * n)


@pytest.mark.parametrize("start", [Gram, TallQR])
@given(n=st.integers(0, 30), more=st.integers(0, 30), seed=st.integers(0, 2**31))
@checked
def test_merging_is_concatenating(
    start: Callable[[int], Gram] | Callable[[int], TallQR], n: int, more: int, seed: int
) -> None:
    Z = random(n + more, WIDTH, seed)
    left, right = start(WIDTH), start(WIDTH)
    left.update(Z[:n])
    right.update(Z[n:])
    left.merge(right)
    assert left.rows == n + more
    torch.testing.assert_close(held(left), Z.T @ Z, rtol=0, atol=1e-12)
    if right.rows:
        torch.testing.assert_close(held(right), Z[n:].T @ Z[n:], rtol=0, atol=1e-12)


@given(n=st.integers(1, 60), units=st.integers(1, 5), unit=st.integers(1, 3), seed=st.integers(0, 2**31))
@checked
def test_gram_and_tall_qr_agree_with_the_rows_themselves(n: int, units: int, unit: int, seed: int) -> None:
    m = units * unit
    Z, scale = random(n, m, seed), random(1, m, seed + 1)[0].abs() + 0.1
    expected = by_pivoted_qr(Z, scale=scale, unit=unit)
    for accumulator, digits in ((Gram(m), 1e-13), (TallQR(m), 1e-14)):
        accumulator.update(Z)
        factor = accumulator.factor(scale, unit)
        assert factor.order.tolist() == expected.order.tolist()
        torch.testing.assert_close(factor.errors(), expected.errors(), rtol=0, atol=1e-7)
        for k in range(units + 1):
            exact = expected.interpolation(k)
            loss = exact.condition**2 if isinstance(accumulator, Gram) else 10 * exact.condition
            torch.testing.assert_close(factor.interpolation(k).T, exact.T, rtol=0, atol=digits * loss + 1e-9)


@every_accumulator
def test_refused_rows_leave_nothing_behind(start: Callable[[int], Accumulator]) -> None:
    Z = random(20, WIDTH, 0)
    accumulator = start(WIDTH)
    accumulator.update(Z)
    before = held(accumulator)
    for bad in (torch.nan, torch.inf):
        broken = Z.clone()
        broken[3, 1:3] = bad
        with pytest.raises(NonFiniteError, match="Z: 2 of 120 entries are NaN or infinite"):
            accumulator.update(broken)
    with pytest.raises(ValueError, match=rf"\(20, 5\); pass \(rows, {WIDTH}\)"):
        accumulator.update(Z[:, :5])
    with pytest.raises(ValueError, match=rf"pass \(rows, {WIDTH}\)"):
        accumulator.update(Z[0])
    with pytest.raises(TypeError, match=r"torch\.int64"):
        accumulator.update(Z.long())
    assert accumulator.rows == 20
    assert torch.equal(held(accumulator), before)


@every_accumulator
def test_other_widths_cannot_be_merged(start: Callable[[int], Accumulator]) -> None:
    with pytest.raises(ValueError, match="cannot merge"):
        start(WIDTH).merge(start(WIDTH - 1))


@every_accumulator
def test_nothing_seen_has_rank_zero(start: Callable[[int], Accumulator]) -> None:
    factor = start(WIDTH).factor(unit=2)
    assert (factor.rank, factor.order.tolist()) == (0, [0, 1, 2])


@every_accumulator
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_rows_of_any_float_dtype_are_summed_exactly(
    start: Callable[[int], Accumulator], dtype: torch.dtype
) -> None:
    Z = random(30, WIDTH, 2).to(dtype)
    coarse, fine = start(WIDTH), start(WIDTH)
    coarse.update(Z)
    fine.update(Z.double())
    assert torch.equal(held(coarse), held(fine))


@every_accumulator
def test_rows_may_be_overwritten_after_an_update(start: Callable[[int], Accumulator]) -> None:
    Z = random(4, WIDTH, 3)
    kept, overwritten = start(WIDTH), start(WIDTH)
    kept.update(Z.clone())
    overwritten.update(Z)
    Z.zero_()
    assert torch.equal(held(overwritten), held(kept))


@every_accumulator
def test_float32_accumulators_agree_with_float64(start: Callable[..., Accumulator]) -> None:
    Z = random(300, WIDTH, 4)
    coarse, fine = start(WIDTH, dtype=torch.float32), start(WIDTH)
    coarse.update(Z)
    fine.update(Z)
    assert held(coarse).dtype == torch.float32
    torch.testing.assert_close(held(coarse).double(), held(fine), rtol=1e-4, atol=1e-3)
    assert coarse.factor().order.tolist() == fine.factor().order.tolist()


def test_gram_of_many_columns_and_rows_is_exactly_symmetric() -> None:
    Z = random(5000, 3, 5)
    gram = Gram(3)
    gram.update(Z)
    torch.testing.assert_close(gram.matrix, Z.T @ Z)
    wide = random(7, 1100, 6)
    gram = Gram(1100)
    gram.update(wide)
    torch.testing.assert_close(gram.matrix, wide.T @ wide, rtol=0, atol=1e-12)
    assert torch.equal(gram.matrix, gram.matrix.T)


def test_float32_products_are_coarser_and_their_noise_is_not_taken_for_rank() -> None:
    Z = of_rank(9000, 64, 40, 7)
    exact, coarse = Gram(64), Gram(64, product_dtype=torch.float32)
    exact.update(Z)
    coarse.update(Z)
    assert coarse.matrix.dtype == torch.float64
    difference = (coarse.matrix - exact.matrix).abs().max() / exact.matrix.diagonal().max()
    assert 1e-9 < float(difference) < 1e-6
    assert exact.factor().rank == coarse.factor().rank == 40
    merged = Gram(64)
    merged.merge(coarse)
    assert merged.factor().rank == 40


def test_tall_qr_is_a_triangle_with_positive_diagonal() -> None:
    few, many = TallQR(WIDTH), TallQR(WIDTH)
    Z = random(40, WIDTH, 8)
    few.update(Z[:4])
    many.update(Z)
    assert few.R.shape == (4, WIDTH)
    assert many.R.shape == (WIDTH, WIDTH)
    for R in (few.R, many.R):
        assert torch.equal(R, R.triu())
        assert (R.diagonal() >= 0).all()


def test_tall_qr_sees_what_a_gram_matrix_has_lost() -> None:
    Z = random(50, 5, 9)
    Z[:, 4] = Z[:, 0] + 1e-10 * Z[:, 4]
    gram, tall = Gram(5), TallQR(5)
    gram.update(Z)
    tall.update(Z)
    assert gram.factor().rank == 4
    assert tall.factor().rank == 5
    assert float(tall.factor().errors()[4]) == pytest.approx(float(by_pivoted_qr(Z).errors()[4]), rel=1e-3)


@given(n=st.integers(0, 40), more=st.integers(0, 40), seed=st.integers(0, 2**31))
@checked
def test_cross_gram_is_the_product_of_all_pairs(n: int, more: int, seed: int) -> None:
    A, B = random(n + more, 4, seed), random(n + more, 3, seed + 1)
    first, second = CrossGram(4, 3), CrossGram(4, 3)
    first.update(A[:n], B[:n].float().double())
    second.update(A[n:], B[n:].float())
    first.merge(second)
    assert first.rows == n + more
    torch.testing.assert_close(first.matrix, A.T @ B.float().double(), rtol=0, atol=1e-12)


def test_cross_gram_refuses_rows_that_do_not_pair() -> None:
    cross = CrossGram(4, 3)
    A, B = random(9, 4, 0), random(9, 3, 1)
    with pytest.raises(ValueError, match="A has 9 rows and B 8"):
        cross.update(A, B[:8])
    with pytest.raises(ValueError, match=r"B has shape \(9, 4\); pass \(rows, 3\)"):
        cross.update(A, A)
    B[0, 0] = torch.nan
    with pytest.raises(NonFiniteError, match="B: 1 of 27"):
        cross.update(A, B)
    with pytest.raises(ValueError, match="cannot merge"):
        cross.merge(CrossGram(3, 4))
    assert (cross.rows, float(cross.matrix.abs().max())) == (0, 0)


def test_cross_gram_products_may_be_float32() -> None:
    A, B = random(5000, 4, 2), random(5000, 3, 3)
    cross = CrossGram(4, 3, product_dtype=torch.float32)
    cross.update(A, B)
    difference = (cross.matrix - A.T @ B).abs().max() / (A.norm() * B.norm())
    assert cross.matrix.dtype == torch.float64
    assert 0 < float(difference) < 1e-6
