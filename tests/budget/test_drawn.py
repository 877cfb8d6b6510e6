"""Curves as a record has them."""

import pytest

from statprune.budget.curves import MOST_POINTS, drawn


def test_a_short_curve_is_whole() -> None:
    found = drawn([1.0, 0.25, 0.0], 1, [4.0, 2.0, 0.0])
    assert found == {"units": [0, 1, 2], "error": [1.0, 0.5, 0.0], "damage": [4.0, 2.0, 0.0]}


@pytest.mark.parametrize(("units", "kept"), [(64, 3), (100, 37), (11008, 5501), (1, 1)])
def test_a_long_curve_has_its_ends_the_width_chosen_and_few_points(units: int, kept: int) -> None:
    curve = [((units - width) / units) ** 2 for width in range(units + 1)]
    found = drawn(curve, kept)
    widths = found["units"]
    assert widths is not None
    assert len(widths) <= MOST_POINTS + 1
    assert {0, kept, units} <= set(widths)
    assert found["error"] == pytest.approx([(units - width) / units for width in widths])
    assert found["damage"] is None
