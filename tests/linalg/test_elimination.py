"""Backward elimination against brute force: every candidate removed, everything fitted again by numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from statprune.errors import NonFiniteError, NumericalError
from statprune.linalg.elimination import _costs, _one_by_one, _without, eliminate

DAMPING = 1e-3


def problem(rows: int, m: int, out: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Correlated Z (rows, m) in which one column nearly repeats another, and the Gram matrix and a fit B."""
    generator = torch.Generator().manual_seed(seed)
    Z = torch.randn(rows, m, generator=generator, dtype=torch.float64) @ torch.randn(
        m, m, generator=generator, dtype=torch.float64
    )
    Z[:, -1] = Z[:, 0] + 0.01 * Z[:, -1]
    W = torch.randn(out, m, generator=generator, dtype=torch.float64)
    return Z, Z.T @ Z, W.T


def least(G: np.ndarray, B: np.ndarray, kept: list[int], damping: float) -> float:
    """The minimum over the kept columns of the damped problem whose full solution is B, up to a constant."""
    H = G + damping * G.diagonal().mean() * np.eye(len(G))
    C = H @ B
    if not kept:
        return 0.0
    part = np.linalg.solve(H[np.ix_(kept, kept)], C[kept])
    return -float((C[kept] * part).sum())


def brute_force(G: np.ndarray, B: np.ndarray, unit: int, damping: float) -> tuple[list[int], list[float]]:
    """Order and errors of taking the cheapest unit each time."""
    units, gone, errors = list(range(len(G) // unit)), [], [0.0]
    whole = least(G, B, list(range(len(G))), damping)

    def without(unit_gone: int) -> float:
        columns = [u * unit + i for u in units if u != unit_gone for i in range(unit)]
        return least(G, B, columns, damping)

    while units:
        cheapest = min(units, key=without)
        errors.append(without(cheapest) - whole)
        units.remove(cheapest)
        gone.append(cheapest)
    return gone[::-1], errors[::-1]


@pytest.mark.parametrize(("m", "unit"), [(9, 1), (12, 3), (10, 2)])
@pytest.mark.parametrize("seed", range(4))
def test_one_at_a_time_is_brute_force(m: int, unit: int, seed: int) -> None:
    _, G, B = problem(40, m, 5, seed)
    found = eliminate(G, B, unit=unit, damping=DAMPING)
    order, errors = brute_force(G.numpy(), B.numpy(), unit, DAMPING)
    assert found.order.tolist() == order
    np.testing.assert_allclose(found.errors.numpy(), errors, rtol=1e-8, atol=1e-8)


@given(m=st.integers(2, 40), seed=st.integers(0, 2**31), at_once=st.sampled_from([0.1, 0.3, 0.9]))
def test_errors_of_groups_are_exact_for_every_width(m: int, seed: int, at_once: float) -> None:
    _, G, B = problem(60, m, 3, seed)
    found = eliminate(G, B, damping=DAMPING, at_once=at_once)
    assert sorted(found.order.tolist()) == list(range(m))
    whole = least(G.numpy(), B.numpy(), list(range(m)), DAMPING)
    for width in range(m + 1):
        kept = sorted(found.order[:width].tolist())
        error = least(G.numpy(), B.numpy(), kept, DAMPING) - whole
        assert float(found.errors[width]) == pytest.approx(error, rel=1e-6, abs=1e-8 * abs(whole))
    assert (found.errors.diff() <= 0).all()
    assert float(found.errors[m]) == 0


@pytest.mark.parametrize(("m", "unit"), [(60, 1), (12, 3)])
def test_where_it_stops_makes_no_difference_to_what_is_kept(m: int, unit: int) -> None:
    _, G, B = problem(80, m, 5, 1)
    whole = eliminate(G, B, unit=unit, damping=DAMPING)
    for count in range(m // unit + 1):
        found = eliminate(G, B, unit=unit, damping=DAMPING, least=count)
        assert set(found.order[:count].tolist()) == set(whole.order[:count].tolist())
        assert torch.equal(found.order[count:], whole.order[count:])
        torch.testing.assert_close(found.errors[count:], whole.errors[count:])
        left = int(found.errors.isinf().sum())
        assert left <= count <= max(left + 1, left * 16 / 15 + 1)
        torch.testing.assert_close(found.errors[left:count], whole.errors[left:count])
    for wrong in (-1, m // unit + 1):
        with pytest.raises(ValueError, match="number of units"):
            eliminate(G, B, unit=unit, damping=DAMPING, least=wrong)


def test_of_two_equal_columns_one_goes_first_and_for_nothing() -> None:
    """A group by stale costs would take both."""
    Z, _, _ = problem(300, 64, 4, 0)
    Z[:, 33] = Z[:, 7]
    G, B = Z.T @ Z, torch.randn(64, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    B[7] = B[33] = 10 * B[7]
    found = eliminate(G, B, damping=1e-10, at_once=0.25)
    places = {found.order.tolist().index(7), found.order.tolist().index(33)}
    assert max(places) == 63
    assert min(places) < 16, "the twin that is left carries both, and is kept"
    assert float(found.errors[63]) < 1e-4 * float(found.errors[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_degenerate_matrices_stay_finite(dtype: torch.dtype) -> None:
    Z, _, B = problem(5, 12, 3, 2)
    Z[:, 4] = 0
    for scale in (1e-12, 1.0, 1e12):
        G = (scale * Z.T @ Z).to(dtype)
        found = eliminate(G, B.to(dtype), damping=1e-3)
        assert found.errors.isfinite().all()
        assert sorted(found.order.tolist()) == list(range(12))


def test_bad_shapes_and_numbers_are_refused() -> None:
    _, G, B = problem(20, 6, 2, 0)
    with pytest.raises(ValueError, match="whole, positive number of units"):
        eliminate(G, B, unit=4, damping=DAMPING)
    with pytest.raises(ValueError, match="B has 5 rows for 6 columns"):
        eliminate(G, B[:5], damping=DAMPING)
    for at_once in (0, -0.1, 1.01, float("nan")):
        with pytest.raises(ValueError, match="pass a share above 0 and at most 1"):
            eliminate(G, B, damping=DAMPING, at_once=at_once)
    assert sorted(eliminate(G, B, damping=DAMPING, at_once=1).order.tolist()) == list(range(6))
    B[0, 0] = torch.nan
    with pytest.raises(NonFiniteError, match="B: 1 of 12"):
        eliminate(G, B, damping=DAMPING)


def test_an_inverse_that_rounding_has_broken_is_refused_by_name() -> None:
    """Where its diagonal is not positive any more, or a unit's block, or those that go."""
    message = r"inverse of 2 columns is not positive at {} of them any more\. Raise damping"
    broken, B = torch.diag(torch.tensor([1.0, -1.0])), torch.ones(2, 1)
    with pytest.raises(NumericalError, match=message.format(2)):
        _costs(torch.zeros(2, 2), B, 2)
    with pytest.raises(NumericalError, match=message.format(1)):
        _one_by_one(broken, torch.eye(2), 1)
    with pytest.raises(NumericalError, match=message.format(1)):
        _without(broken, B, torch.tensor([1]), 1)


def test_a_single_unit_by_hand() -> None:
    """H = 3: dropping the one column adds 3 * 3^2; a unit of all four columns of H = 1.5 I, 1.5 * 8."""
    one = eliminate(torch.tensor([[2.0]]), torch.tensor([[3.0]]), damping=0.5)
    assert (one.order.tolist(), one.errors.tolist()) == ([0], pytest.approx([27, 0]))
    whole = eliminate(torch.eye(4), torch.ones(4, 2), unit=4, damping=0.5)
    assert (whole.order.tolist(), whole.errors.tolist()) == ([0], pytest.approx([12, 0]))


@pytest.mark.parametrize("unit", [1, 4])
def test_single_precision_is_near_double(unit: int) -> None:
    """The errors of the order that it found, not of another."""
    _, G, B = problem(200, 64, 4, 5)
    found = eliminate(G.float(), B.float(), unit=unit, damping=1e-2)
    assert found.errors.dtype == torch.float64
    exact = G.float().double().numpy(), B.float().double().numpy()
    columns = (found.order[:, None] * unit + torch.arange(unit)).flatten().tolist()
    lows = [least(*exact, columns[: k * unit], 1e-2) for k in range(64 // unit + 1)]
    np.testing.assert_allclose(
        found.errors.numpy(), np.array(lows) - lows[-1], rtol=0, atol=1e-3 * abs(lows[-1])
    )


def test_a_matrix_that_is_not_square_or_all_zero_is_refused() -> None:
    _, G, B = problem(20, 6, 2, 0)
    with pytest.raises(ValueError, match=r"cannot solve \(5, 6\)"):
        eliminate(G[:5], B[:5], damping=DAMPING)
    with pytest.raises(NumericalError, match="mean diagonal 0"):
        eliminate(torch.zeros_like(G), B, damping=DAMPING)


@pytest.mark.parametrize("unit", [1, 4])
def test_what_is_given_stays_as_it_is(unit: int) -> None:
    _, G, B = problem(900, 600, 5, 3)
    before = (G.clone(), B.clone())
    eliminate(G, B, unit=unit, damping=DAMPING)
    assert torch.equal(G, before[0])
    assert torch.equal(B, before[1])
