"""Damage curves + exact costs + a budget -> the plan of least predicted damage.

Each site takes one of its legal widths; the predicted damages add up, the costs must fit: a multiple-choice
knapsack, solved by HiGHS through scipy.

Source: Sinha & Zoltners 1979 for the problem; algorithm notes in docs/algorithm.md for damages that add up.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from statprune.anatomy.sites import Site, blocks_of
from statprune.budget.allocate import Budget
from statprune.budget.damage import DamageCurves, Floats
from statprune.budget.plan import Plan
from statprune.errors import BudgetError

GAP = 1e-3
"""The plan's damage is within this share of the least possible."""

SECONDS = 20.0

SCALE = 1e3
"""What the solver is told that the limit is: its tolerance is absolute, where it does not scale again."""

TOLERANCE = 1e-6
"""By this share of the limit the solver may exceed it."""

ATTEMPTS = 8
"""So many times it solves, at most; the last time for a limit that it cannot exceed."""


Picks = list[int]
"""The position, among a site's legal widths, of the one it takes: one a site."""


def knapsack(curves: DamageCurves, sites: Sequence[Site], budget: Budget) -> Plan:
    """The plan of least predicted damage that fits; widths differ from block to block.

    The solver's tolerances are absolute, about 1e-6. So damages are given to it as shares of what a plan that
    fits does, widths that alone do more are left out, and what it returns is priced again, exactly: if that
    is too much, it solves again without that plan, and in the end for less; if it is far better than the plan
    known, with finer shares.

    Raises:
        BudgetError: no legal widths fit.
    """
    blocks, limit = blocks_of(sites), budget.limit(sites)
    choices = [_Choices.of(site, curves[site.name].damage(), budget, blocks) for site in sites]

    def price(picks: Picks) -> float:
        return budget.cost.of_plan(_plan(choices, picks, budget), sites)

    best = _by_multiplier(choices, limit, price)
    if best is None:
        raise BudgetError(f"keep {budget.keep:g} of {budget.cost.of}: no legal widths fit. Keep more.")
    lowered, dear = limit, list[Picks]()
    for attempt in range(ATTEMPTS):
        if attempt == ATTEMPTS - 1:
            lowered = min(lowered, limit * (1 - 2 * TOLERANCE))
        found = _solved(choices, lowered, _damage(choices, best), dear)
        if found is None:
            break
        excess = price(found) - limit
        if excess > 0:
            lowered -= excess if attempt >= ATTEMPTS // 2 else 0
            dear.append(found)
            continue
        before = _damage(choices, best)
        best = min(best, found, key=lambda picks: _damage(choices, picks))
        if _damage(choices, best) > before / 10:
            break
    return _plan(choices, best, budget)


@dataclass(frozen=True)
class _Choices:
    """A site's legal widths, what each costs, and by how much its damage exceeds the least of them."""

    name: str
    widths: list[int]
    costs: Floats
    damages: Floats

    @classmethod
    def of(cls, site: Site, damage: Floats, budget: Budget, blocks: int) -> "_Choices":
        widths = budget.widths(site, blocks)
        costs = np.array([budget.cost.of_width(site, width) for width in widths], dtype=float)
        return cls(site.name, widths, costs, damage[widths] - damage[widths].min())


def _plan(choices: Sequence[_Choices], picks: Picks, budget: Budget) -> Plan:
    widths = {each.name: each.widths[pick] for each, pick in zip(choices, picks, strict=True)}
    return Plan(widths, f"least predicted damage, keep {budget.keep:g} of {budget.cost.of}")


def _damage(choices: Sequence[_Choices], picks: Picks) -> float:
    return float(sum(each.damages[pick] for each, pick in zip(choices, picks, strict=True)))


def _by_multiplier(
    choices: Sequence[_Choices], limit: float, price: Callable[[Picks], float]
) -> Picks | None:
    """A plan that fits, by bisection for the worth of a unit of cost; None where no plan does."""
    dense = max(sum(each.costs.max() for each in choices), np.finfo(float).tiny)
    best = [int(each.costs.argmin()) for each in choices]
    if price(best) > limit:
        return None
    low, high = -700.0, 700.0
    for _ in range(64):
        middle = (low + high) / 2
        picks = [int((each.damages + np.exp(middle) * each.costs / dense).argmin()) for each in choices]
        if price(picks) > limit:
            low = middle
            continue
        high = middle
        best = min(best, picks, key=lambda each: _damage(choices, each))
    return best


def _solved(choices: Sequence[_Choices], limit: float, most: float, without: Sequence[Picks]) -> Picks | None:
    """The plan that does least damage at this limit, within the solver's tolerances; none of `without`.

    Widths that alone do more damage than `most` are left out. None where `most` is 0 or nothing is found.
    """
    if not (most > 0 and limit > 0):
        return None
    useful = [np.nonzero(each.damages <= most)[0] for each in choices]
    rows = np.repeat(np.arange(len(choices)), [len(each) for each in useful])
    values = np.concatenate([each.damages[kept] for each, kept in zip(choices, useful, strict=True)])
    costs = np.concatenate([each.costs[kept] for each, kept in zip(choices, useful, strict=True)])
    one_each = csr_array((np.ones(len(rows)), (rows, np.arange(len(rows)))), shape=(len(choices), len(rows)))
    positions = np.concatenate(useful)
    ruled_out = [(positions == np.array(picks)[rows]).astype(float) for picks in without]
    found = milp(
        values / most,
        constraints=[
            LinearConstraint(one_each, 1, 1),
            LinearConstraint(csr_array(costs[None, :] / limit * SCALE), -np.inf, SCALE),
            *(LinearConstraint(csr_array(same[None, :]), -np.inf, len(choices) - 1) for same in ruled_out),
        ],
        integrality=np.ones(len(rows), dtype=np.int64),
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": GAP, "time_limit": SECONDS},
    )
    if found.x is None:
        return None
    return [int(kept[found.x[rows == row].argmax()]) for row, kept in enumerate(useful)]


def uniform_knapsack(curves: DamageCurves, sites: Sequence[Site], budget: Budget) -> Plan:
    """The same heads and the same neurons in every block: of all pairs that fit, the one of least damage.

    Raises:
        BudgetError: no pair fits, or floors, pins and protected blocks leave blocks no width in common.
    """
    damages = {site.name: curves[site.name].damage() for site in sites}
    limit, best = budget.limit(sites), None
    sayable = ", head counts that stock transformers can open" if budget.restrictions.only else ""
    why = f"uniform{sayable}, least predicted damage"
    every_heads, every_neurons = budget.in_common(sites)
    for heads in every_heads:
        for neurons in every_neurons:
            widths = {site.name: heads if site.kind == "attention" else neurons[site.part] for site in sites}
            plan = Plan(widths, f"{why}, keep {budget.keep:g} of {budget.cost.of}")
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
