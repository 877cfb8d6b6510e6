"""The least predicted damage for every budget, as a curve: what the plan of each share comes near to."""

from collections.abc import Sequence

import numpy as np

from statprune.anatomy.sites import Site, blocks_of
from statprune.budget.allocate import Budget
from statprune.budget.damage import DamageCurves
from statprune.budget.knapsack import Choices, uniform_plans

Point = tuple[float, float]
"""(share of the dense cost, predicted damage)."""

STEPS = 64


def frontier(
    curves: DamageCurves, sites: Sequence[Site], budget: Budget, *, same: bool = False
) -> tuple[Point, ...]:
    """Plans that no legal plan betters in both cost and damage, by ascending share; whatever `budget.keep`.

    Where blocks may differ, those on the convex hull: a sum of damage and cost is least with them, for some
    worth of a unit of cost (Everett 1963). With `same` all those whose blocks are equal.

    Raises:
        BudgetError: floors, pins and protected blocks leave blocks no width in common.
    """
    dense = budget.cost.dense(sites)
    if same:
        plans = uniform_plans(curves, sites, budget)
        priced, done = plans.costs.ravel(), plans.damages.ravel()
        order = np.lexsort((done, priced))
        least = np.minimum.accumulate(done[order])
        new = np.concatenate([[True], least[1:] < least[:-1]])
        return tuple(
            (float(c / dense), float(d)) for c, d in zip(priced[order][new], least[new], strict=True)
        )
    blocks = blocks_of(sites)
    choices = [Choices.of(site, curves[site.name].damage(), budget, blocks) for site in sites]
    lowest = sum(float(curves[each.name].damage()[each.widths].min()) for each in choices)
    points: dict[float, float] = {}
    for worth in [0.0, *np.geomspace(1e-12, 1e6, STEPS * 2), np.inf]:
        cost = damage = 0.0
        for each in choices:
            if worth == np.inf:
                pick = int(each.costs.argmin())
            else:
                pick = int((each.damages + worth * each.costs / dense).argmin())
            cost, damage = cost + float(each.costs[pick]), damage + float(each.damages[pick])
        points[cost / dense] = lowest + damage
    return tuple(sorted(points.items()))
