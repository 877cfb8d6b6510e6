"""The curve of least damage against plans made for its shares, and against every plan."""

import numpy as np
import pytest

from statprune.budget.allocate import Budget
from statprune.budget.frontier import frontier
from statprune.budget.knapsack import knapsack, predicted
from statprune.budget.uniform import uniform_knapsack
from tests.budget.test_knapsack import BLOCKS, PRICES, SOME, by_enumeration, curves, sites


@pytest.mark.parametrize("of", PRICES)
@pytest.mark.parametrize("limits", [None, SOME], ids=["free", "restricted"])
def test_no_plan_lies_below_the_curve_and_its_points_are_plans(of: str, limits: object) -> None:
    made = curves(3)
    budget = Budget(1.0, PRICES[of], 4, **({} if limits is None else {"restrictions": limits}))
    curve = frontier(made, sites(), budget)
    shares, damages = zip(*curve, strict=True)
    assert list(shares) == sorted(shares)
    assert list(damages) == sorted(damages, reverse=True)
    least = budget.least(sites())
    assert shares[0] == pytest.approx(budget.cost.of_plan(least, sites()) / budget.cost.dense(sites()))
    for share, damage in curve:
        exact = Budget(min(1.0, share + 1e-9), PRICES[of], 4, budget.restrictions)
        assert damage == pytest.approx(by_enumeration(made, exact, uniform=False), rel=1e-9, abs=1e-12)
    for keep in np.linspace(shares[0] + 0.01, 1, 7):
        plan = knapsack(made, sites(), Budget(float(keep), PRICES[of], 4, budget.restrictions))
        share = budget.cost.of_plan(plan, sites()) / budget.cost.dense(sites())
        assert predicted(made, plan) >= np.interp(share, shares, damages) - 1e-9


@pytest.mark.parametrize("of", PRICES)
def test_the_curve_of_equal_blocks_is_that_of_their_plans(of: str) -> None:
    made, budget = curves(5), Budget(1.0, PRICES[of], 4)
    curve = frontier(made, sites(), budget, same=True)
    assert BLOCKS > 1
    for share, damage in curve:
        plan = uniform_knapsack(made, sites(), Budget(min(1.0, share + 1e-9), PRICES[of], 4))
        assert predicted(made, plan) == pytest.approx(damage, abs=1e-12)
