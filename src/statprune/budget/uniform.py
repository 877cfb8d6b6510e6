"""Damage curves + exact costs + a budget -> the plan of least predicted damage, of those with equal blocks.

There are so few pairs of widths that all are priced.

Sources: algorithm notes in docs/algorithm.md for damages that add up.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from statprune.anatomy.sites import Site, blocks_of
from statprune.budget.allocate import Budget
from statprune.budget.damage import DamageCurves, Floats
from statprune.budget.plan import Plan
from statprune.errors import BudgetError

ROUNDING = 1e-6
"""By this share of the limit a pair's cost, summed site by site, may be above the plan's own."""


def uniform_knapsack(curves: DamageCurves, sites: Sequence[Site], budget: Budget) -> Plan:
    """The same heads and the same neurons in every block: of all pairs that fit, the one of least damage.

    Raises:
        BudgetError: no pair fits, or floors, pins and protected blocks leave blocks no width in common.
    """
    limit, cost = budget.limit(sites), budget.cost
    sayable = ", head counts that stock transformers can open" if budget.restrictions.only else ""
    why = f"uniform{sayable}, least predicted damage, keep {budget.keep:g} of {cost.of}"
    pairs = uniform_plans(curves, sites, budget)
    left = np.where(pairs.costs > limit * (1 + ROUNDING), np.inf, pairs.damages)
    while np.isfinite(left).any():
        heads, neurons = divmod(int(left.argmin()), left.shape[1])
        widths = {**pairs.heads[heads], **pairs.neurons[neurons]}
        plan = Plan({site.name: widths[site.name] for site in sites}, why)
        if cost.of_plan(plan, sites) <= limit:
            return plan
        left[heads, neurons] = np.inf
    raise BudgetError(
        f"keep {budget.keep:g} of {cost.of}: no uniform widths fit. Keep more, or use per-layer widths."
    )


@dataclass(frozen=True)
class UniformPlans:
    """Every plan with equal blocks: widths of attention, of the rest, and what each pair does and costs.

    `damages` and `costs` are (len(heads), len(neurons)).
    """

    heads: Sequence[Mapping[str, int]]
    neurons: Sequence[Mapping[str, int]]
    damages: Floats
    costs: Floats


def uniform_plans(curves: DamageCurves, sites: Sequence[Site], budget: Budget) -> UniformPlans:
    """All that the budget's restrictions allow, whatever they cost.

    Raises:
        BudgetError: floors, pins and protected blocks leave blocks no width in common.
    """
    cost, blocks = budget.cost, blocks_of(sites)
    every_heads, every_neurons = budget.in_common(sites)
    attention = [site for site in sites if site.kind == "attention"]
    forward = [site for site in sites if site.kind != "attention"]
    heads = [{site.name: count for site in attention} for count in every_heads]
    neurons = [{site.name: count[site.part] for site in forward} for count in every_neurons]
    damages = {site.name: curves[site.name].damage() for site in sites}
    legal = {site.name: budget.widths(site, blocks) for site in sites}
    prices = {s.name: dict(zip(legal[s.name], cost.of_widths(s, legal[s.name]), strict=True)) for s in sites}
    done, priced = (np.add.outer(_sums(each, heads), _sums(each, neurons)) for each in (damages, prices))
    return UniformPlans(heads, neurons, done, priced)


def _sums(of_width: Mapping[str, Any], plans: Sequence[Mapping[str, int]]) -> Floats:
    return np.array(
        [sum(of_width[name][width] for name, width in each.items()) for each in plans], dtype=float
    )
