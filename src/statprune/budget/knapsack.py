"""Damage curves + exact costs + a budget -> the plan of least predicted damage.

Each site takes one of its legal widths; the predicted damages add up, the costs must fit: a multiple-choice
knapsack, solved by HiGHS through scipy.

Source: Sinha & Zoltners 1979 for the problem; algorithm notes in docs/algorithm.md for damages that add up.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from statprune.anatomy.parts import SiteKind
from statprune.anatomy.sites import Site, blocks_of
from statprune.budget.allocate import Budget
from statprune.budget.damage import DamageCurves, Floats
from statprune.budget.plan import Plan
from statprune.errors import BudgetError

GAP = 1e-3
"""The plan's damage is within this share of the least possible."""

SECONDS = 20.0


def knapsack(curves: DamageCurves, sites: Sequence[Site], budget: Budget) -> Plan:
    """The plan of least predicted damage that fits; widths differ from block to block.

    Raises:
        BudgetError: no legal widths fit.
    """
    damages = {site.name: curves[site.name].damage() for site in sites}
    blocks = blocks_of(sites)
    legal = [budget.widths(site, blocks) for site in sites]
    items = [(site, width) for site, widths in zip(sites, legal, strict=True) for width in widths]
    values = np.array([damages[site.name][width] for site, width in items])
    costs = np.array([budget.cost.of_width(site, width) for site, width in items], dtype=float)
    limit = budget.limit(sites)
    rows = np.repeat(np.arange(len(sites)), [len(widths) for widths in legal])
    choices = csr_array((np.ones(len(items)), (rows, np.arange(len(items)))), shape=(len(sites), len(items)))
    found = milp(
        values / max(values.max(), np.finfo(float).tiny),
        constraints=[
            LinearConstraint(choices, 1, 1),
            LinearConstraint(csr_array(costs[None, :] / limit), -np.inf, 1),
        ],
        integrality=np.ones(len(items), dtype=np.int64),
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": GAP, "time_limit": SECONDS},
    )
    if found.x is None:
        raise BudgetError(f"keep {budget.keep:g} of {budget.cost.of}: no legal widths fit. Keep more.")
    chosen = {items[i][0].name: items[i][1] for i in np.nonzero(found.x > 0.5)[0]}
    why = f"least predicted damage, keep {budget.keep:g} of {budget.cost.of}"
    return Plan({site.name: chosen[site.name] for site in sites}, why)


def uniform_knapsack(curves: DamageCurves, sites: Sequence[Site], budget: Budget) -> Plan:
    """The same heads and the same neurons in every block: of all pairs that fit, the one of least damage.

    Raises:
        BudgetError: no pair fits, or floors, pins and protected blocks leave blocks no width in common.
    """
    damages = {site.name: curves[site.name].damage() for site in sites}
    blocks, limit, best = blocks_of(sites), budget.limit(sites), None
    for heads in _in_common("attention", sites, budget, blocks):
        for neurons in _in_common("feed_forward", sites, budget, blocks):
            widths = {site.name: heads if site.kind == "attention" else neurons for site in sites}
            plan = Plan(widths, f"uniform, least predicted damage, keep {budget.keep:g} of {budget.cost.of}")
            damage = _sum(damages, plan)
            if budget.cost.of_plan(plan, sites) <= limit and (best is None or damage < best[0]):
                best = damage, plan
    if best is None:
        raise BudgetError(
            f"keep {budget.keep:g} of {budget.cost.of}: no uniform widths fit. "
            f"Keep more, or use per-layer widths."
        )
    return best[1]


def predicted(curves: DamageCurves, plan: Plan) -> float:
    """The damage that the plan is expected to do: the sum of its sites'."""
    return _sum({name: curve.damage() for name, curve in curves.items()}, plan)


def _sum(damages: Mapping[str, Floats], plan: Plan) -> float:
    return float(sum(damages[name][width] for name, width in plan.widths.items()))


def _in_common(kind: SiteKind, sites: Sequence[Site], budget: Budget, blocks: int) -> list[int]:
    legal = [set(budget.widths(site, blocks)) for site in sites if site.kind == kind]
    return sorted(set.intersection(*legal))
