"""Moments: order and batches do not matter, means are those of all rows, and float32 products cost little."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matrices import checked, random, three
from torch import Tensor

from statprune.errors import NonFiniteError
from statprune.linalg.moments import Moments, MomentSum, in_two

M, OUT = 5, 3
seeds = st.integers(0, 2**31)


def pairs(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Rows of Z (n, M) and Y (n, OUT) that are not centred."""
    return random(n, M, seed) + 1, random(n, OUT, seed + 1) - 2


def summed(Z: Tensor, Y: Tensor, *, constant: bool = False) -> MomentSum:
    found = MomentSum(Z.shape[1], Y.shape[1], constant=constant)
    found.update(Z, Y)
    return found


def numbers(found: Moments) -> list[np.ndarray]:
    tensors = (found.G, found.C, found.mean_input, found.mean_target)
    return [*(each.numpy() for each in tensors), np.array([found.energy, found.rows])]


def close(found: Moments, expected: Moments) -> None:
    for a, b in zip(numbers(found), numbers(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * max(1.0, expected.energy))


@given(n=st.integers(1, 60), more=st.integers(0, 60), seed=seeds, constant=st.booleans())
@checked
def test_the_order_of_merging_does_not_matter(n: int, more: int, seed: int, constant: bool) -> None:
    Z, Y = pairs(n + more, seed)
    empty = MomentSum(M, OUT, constant=constant)
    _, _, expected = three(summed(Z, Y, constant=constant), empty)
    first, second = (summed(Z[part], Y[part], constant=constant) for part in (slice(n), slice(n, None)))
    close(three(first, second)[2], expected)
    close(three(second, first)[2], expected)
    assert (first.rows, second.rows) == (n, more), "looking does not merge"
    second.merge(first)
    assert second.rows == n + more
    close(three(empty, second)[2], expected)
    assert empty.rows == 0


@given(n=st.integers(2, 60), seed=seeds, constant=st.booleans(), data=st.data())
@checked
def test_both_parts_are_centred_about_all_rows(
    n: int, seed: int, constant: bool, data: st.DataObject
) -> None:
    Z, Y = pairs(n, seed)
    split = data.draw(st.integers(0, n))
    Z[:split] += 3  # the two parts have different means
    found = three(*(summed(Z[p], Y[p], constant=constant) for p in (slice(split), slice(split, None))))
    a, b = (constant * each.numpy().mean(axis=0) for each in (Z, Y))
    for moments, rows in zip(found, (slice(split), slice(split, None), slice(None)), strict=True):
        z, y = Z[rows].numpy() - a, Y[rows].numpy() - b
        expected = [z.T @ z, z.T @ y, a, b, np.array([(y**2).sum(), len(z)])]
        for one, other in zip(numbers(moments), expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * 16 * n)


@given(seed=seeds, constant=st.booleans(), columns=st.permutations(range(M)), count=st.integers(1, M))
@checked
def test_some_columns_and_what_a_fit_leaves_are_as_if_summed(
    seed: int, constant: bool, columns: list[int], count: int
) -> None:
    Z, Y = pairs(50, seed)
    empty = MomentSum(M, OUT, constant=constant)
    whole = three(summed(Z, Y, constant=constant), empty)[2]
    chosen = torch.tensor(columns[:count])
    few = MomentSum(count, OUT, constant=constant)
    close(whole.of(chosen), three(summed(Z[:, chosen], Y, constant=constant), few)[2])
    B = random(M, OUT, seed + 2)
    left = three(summed(Z, Y - Z @ B, constant=constant), empty)[2]
    found = whole.against(B)
    scale = max(left.energy, float(whole.G.trace()))
    for a, b in zip(numbers(found), numbers(left), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * scale)
    assert whole.error(B) == found.energy


@pytest.mark.parametrize("constant", [False, True])
def test_halves_are_used_up(constant: bool) -> None:
    Z, Y = pairs(60, 7)
    sums = [summed(Z[part], Y[part], constant=constant) for part in (slice(40), slice(40, None))]
    fit, held, whole = three(*sums)
    B = random(M, OUT, 8)
    halves = in_two(*sums)
    for left, part in zip(halves.against(B), (fit, held), strict=True):
        for a, b in zip(numbers(left), numbers(part.against(B)), strict=True):
            np.testing.assert_array_equal(a, b)
    assert halves.spread == pytest.approx(float(whole.G.trace()))
    for a, b in zip(numbers(halves.whole()), numbers(whole), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(AttributeError):
        sums[0].moments()
    with pytest.raises(AttributeError):
        halves.against(B)


def test_errors_do_not_depend_on_how_many_targets_there_are() -> None:
    """More than are worked on at a time."""
    Z, B = random(50, M, 1), random(M, 1300, 2)
    Y = Z @ B + random(50, 1300, 3)
    found = MomentSum(M, 1300, constant=False)
    found.update(Z, Y)
    assert found.moments().error(B) == pytest.approx(float((Y - Z @ B).square().sum()), rel=1e-4)


def test_an_error_is_never_negative() -> None:
    Z, _ = pairs(50, 0)
    B = random(M, OUT, 1)
    found, _, _ = three(summed(Z, Z @ B), MomentSum(M, OUT, constant=False))
    rounded = Moments(found.G, found.C, found.energy * (1 - 1e-6), *([torch.zeros(1)] * 2), 50, 50)
    assert rounded.error(B) == 0.0
    assert rounded.error(torch.zeros_like(B)) == rounded.energy


@pytest.mark.parametrize("rows", [100, 10_000])
def test_products_are_right_to_some_millionths_of_the_norms(rows: int) -> None:
    Z, Y = pairs(rows, 3)
    Z[:, 1] *= 1e4
    Z[:, 2] *= 1e-4
    found, _, _ = three(summed(Z, Y), MomentSum(M, OUT, constant=False))
    z, y = Z.numpy(), Y.numpy()
    zs, ys = np.linalg.norm(z, axis=0), np.linalg.norm(y, axis=0)
    assert (np.abs(found.G.numpy() - z.T @ z) <= 5e-6 * np.outer(zs, zs)).all()
    assert (np.abs(found.C.numpy() - z.T @ y) <= 5e-6 * np.outer(zs, ys)).all()
    assert found.energy == pytest.approx(float((y**2).sum()), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("apart", [0.0, 5.0])
def test_means_far_above_the_spread_cost_no_digits(dtype: torch.dtype, apart: float) -> None:
    """Mean 1e4, spread 1, in batches, two sums, and a sum that merges others; `apart`: their means differ."""
    Z, Y = (each.to(dtype) for each in (random(3000, M, 5) + 1e4, random(3000, OUT, 6) - 1e4))
    Z[2000:] += apart
    Y[2000:] -= apart
    fit, held, merged = (MomentSum(M, OUT, constant=True) for _ in range(3))
    for part in (slice(0), slice(100), slice(100, 2000)):
        fit.update(Z[part], Y[part])
    held.update(Z[2000:], Y[2000:])
    found = three(fit, held)
    merged.merge(held)
    merged.merge(fit)
    alone = three(merged, MomentSum(M, OUT, constant=True))
    a, b = (each.double().numpy().mean(axis=0) for each in (Z, Y))
    halves = (slice(2000), slice(2000, None), slice(None))
    for moments, rows in zip((*found, alone[0]), (*halves, slice(None)), strict=True):
        z, y = Z[rows].double().numpy() - a, Y[rows].double().numpy() - b
        np.testing.assert_allclose(moments.mean_input.numpy(), a, rtol=1e-14)
        np.testing.assert_allclose(moments.mean_target.numpy(), b, rtol=1e-14)
        zs, ys = np.linalg.norm(z, axis=0), np.linalg.norm(y, axis=0)
        assert (np.abs(moments.G.numpy() - z.T @ z) <= 3e-5 * np.outer(zs, zs)).all()
        assert (np.abs(moments.C.numpy() - z.T @ y) <= 3e-5 * np.outer(zs, ys)).all()
        assert moments.energy == pytest.approx(float((y**2).sum()), rel=3e-5)


@pytest.mark.parametrize("constant", [False, True])
def test_what_is_refused_is_not_added(constant: bool) -> None:
    Z, Y = pairs(10, 4)
    found = summed(Z, Y, constant=constant)
    before = three(found, MomentSum(M, OUT, constant=constant))[2]
    bad = Y.clone()
    bad[3, 1] = torch.nan
    with pytest.raises(NonFiniteError, match="B: 1 of 30"):
        found.update(Z, bad)
    with pytest.raises(ValueError, match="A has 9 rows and B 10"):
        found.update(Z[:9], Y)
    with pytest.raises(ValueError, match=r"pass \(rows, 5\)"):
        found.update(Z[:, :4], Y)
    after = three(found, MomentSum(M, OUT, constant=constant))[2]
    for a, b in zip(numbers(after), numbers(before), strict=True):
        np.testing.assert_array_equal(a, b)


def test_no_rows_have_no_moments() -> None:
    nothing = (MomentSum(M, OUT, constant=True), MomentSum(M, OUT, constant=True))
    for found in three(*nothing):
        assert all(not each.any() for each in numbers(found))


def test_products_are_of_the_dtype_asked_for() -> None:
    Z, Y = pairs(50, 0)
    total = MomentSum(M, OUT, constant=False, products=torch.float64)
    total.update(Z, Y)
    found = total.moments()
    np.testing.assert_allclose(found.G.numpy(), (Z.T @ Z).numpy(), rtol=1e-13)
    np.testing.assert_allclose(found.C.numpy(), (Z.T @ Y).numpy(), rtol=1e-12, atol=1e-12)
