"""The least predicted damage for every budget, as a curve: what the plan of each share comes near to."""

import heapq
from collections.abc import Sequence

import numpy as np

from statprune.anatomy.sites import Site, blocks_of
from statprune.budget.allocate import Budget
from statprune.budget.damage import DamageCurves
from statprune.budget.knapsack import Choices
from statprune.budget.uniform import uniform_plans

Point = tuple[float, float]
"""(share of the dense cost, predicted damage)."""

MOST = 96
"""Points of a curve."""

ROUNDING = 1e-12


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
    return tuple((cost / dense, lowest + damage) for cost, damage in _hull(choices))


def _hull(choices: Sequence[Choices]) -> list[Point]:
    """(cost, damage) of the plans on the lower convex hull, by ascending cost; at most MOST of them.

    Between two of them the next is the one that is best at the worth for which both are alike; the widest gap
    is looked into first.
    """
    ends = _best(choices, np.inf), _best(choices, 0.0)
    points, gaps = set(ends), [(ends[0][0] - ends[1][0], *ends)]
    while gaps and len(points) < MOST:
        _, left, right = heapq.heappop(gaps)
        if left[0] >= right[0]:
            continue
        worth = (left[1] - right[1]) / (right[0] - left[0])
        found = _best(choices, worth)
        gained = (left[1] + worth * left[0]) - (found[1] + worth * found[0])
        if found in points or gained <= ROUNDING * left[1]:
            continue
        points.add(found)
        for pair in ((left, found), (found, right)):
            heapq.heappush(gaps, (pair[0][0] - pair[1][0], *pair))
    return sorted(points)


def _best(choices: Sequence[Choices], worth: float) -> Point:
    """Cost and damage of the plan whose damage and cost, at this worth, are least together."""
    cost = damage = 0.0
    for each in choices:
        # Where cost alone counts, of the cheapest that of least damage.
        both = np.where(each.costs > each.costs.min(), np.inf, each.damages) if worth == np.inf else None
        pick = int((each.damages + worth * each.costs if both is None else both).argmin())
        cost, damage = cost + float(each.costs[pick]), damage + float(each.damages[pick])
    return cost, damage
