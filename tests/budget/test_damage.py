"""Damage curves: through what was measured, straight in the logarithms between, in proportion beyond."""

from math import exp, log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from statprune.budget.damage import DamageCurve, widths_to_measure


def error_curve(units: int, seed: int) -> np.ndarray:
    """Falling from 1 to 0 over several powers of ten, strictly until its zeros: (units + 1,)."""
    generator = np.random.default_rng(seed)
    error = np.exp(-np.cumsum(generator.random(units + 1)))
    error /= error[0]
    error[units - int(generator.integers(0, units)) :] = 0
    return error


def by_hand(error: float, points: list[tuple[float, float]]) -> float:
    """Damage at one error from (error, damage) points, ascending."""
    if error == 0:
        return 0.0
    (first, low), (last, high) = points[0], points[-1]
    if error <= first:
        return low * error / first
    if error >= last:
        return high * error / last
    right = next(i for i, (at, _) in enumerate(points) if at >= error)
    (a, fa), (b, fb) = points[right - 1], points[right]
    share = log(error / a) / log(b / a)
    return exp((1 - share) * log(fa) + share * log(fb))


@given(units=st.integers(2, 40), seed=st.integers(0, 2**31), count=st.integers(1, 4))
def test_every_width_by_hand(units: int, seed: int, count: int) -> None:
    error = error_curve(units, seed)
    generator = np.random.default_rng(seed)
    widths = sorted({int(width) for width in generator.integers(0, units, count)}, reverse=True)
    widths = [width for width in widths if error[width] > 0] or [0]
    found = np.sort(generator.random(len(widths)) + 1e-3)
    curve = DamageCurve(error, [*zip(widths, found.tolist(), strict=True)][::-1])
    points = [(float(error[width]), float(at)) for width, at in zip(widths, found, strict=True)]
    expected = [by_hand(float(each), points) for each in error]
    np.testing.assert_allclose(curve.damage(), expected, rtol=1e-9, atol=0)


@given(
    units=st.integers(2, 40),
    seed=st.integers(0, 2**31),
    found=st.lists(st.floats(0, 1e3), min_size=0, max_size=5),
)
def test_damage_never_rises_with_the_width_whatever_was_measured(
    units: int, seed: int, found: list[float]
) -> None:
    error = error_curve(units, seed)
    widths = np.random.default_rng(seed).integers(0, units + 1, len(found)).tolist()
    damage = DamageCurve(error, [*zip(widths, found, strict=True)]).damage()
    assert damage.shape == (units + 1,)
    assert np.isfinite(damage).all()
    assert (np.diff(damage) <= 0).all()
    assert (damage >= 0).all()
    assert damage[-1] == 0


def test_what_was_not_measured_is_the_error_itself() -> None:
    error = np.array([1.0, 0.25, 0.0])
    np.testing.assert_array_equal(DamageCurve(error, ()).damage(), error)
    # A measurement where nothing is lost says nothing of where something is.
    np.testing.assert_array_equal(DamageCurve(error, [(2, 0.7)]).damage(), error)
    np.testing.assert_array_equal(DamageCurve(np.zeros(4), ()).damage(), np.zeros(4))


@pytest.mark.parametrize("found", [0.0, -1e-9])
def test_a_measurement_of_no_damage_at_all_is_no_failure(found: float) -> None:
    damage = DamageCurve(np.array([1.0, 0.2, 0.1, 0.0]), [(2, found), (1, 0.3)]).damage()
    assert np.isfinite(damage).all()
    np.testing.assert_allclose(damage[:2], [1.5, 0.3])
    assert damage[2] < 1e-300


def test_damage_leaves_the_curve_alone() -> None:
    error = np.array([1.0, 0.3, 0.0])
    damage = DamageCurve(error, ()).damage()
    damage[0] = 7
    assert error[0] == 1


@given(
    units=st.integers(2, 40),
    seed=st.integers(0, 2**31),
    levels=st.lists(st.floats(1e-3, 1.5), max_size=4),
)
def test_the_widest_width_that_reaches_a_level(units: int, seed: int, levels: list[float]) -> None:
    error = error_curve(units, seed)
    wanted = set()
    for level in levels:
        reached = [width for width in range(units + 1) if error[width] >= level]
        if reached:
            wanted.add(max(1, reached[-1]))
    expected = sorted(width for width in wanted if error[width] > 0)
    assert widths_to_measure(error, levels) == expected
