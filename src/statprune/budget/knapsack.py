"""Damage curves + exact costs + a budget -> the plan of least predicted damage.

Each site takes one of its legal widths; the predicted damages add up, the costs must fit: a multiple-choice
knapsack, solved by HiGHS through scipy.

Sources: Sinha & Zoltners 1979 for the problem, and for what can be left out of it; Everett 1963 for the
bound; algorithm notes in docs/algorithm.md for damages that add up.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from statprune.anatomy.sites import Site, blocks_of
from statprune.budget.allocate import Budget
from statprune.budget.chatter import without_chatter
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

ROUNDING = 1e-9
"""By this share of the largest, sums of damage and worth may be wrong."""

Picks = list[int]
"""The position, among a site's legal widths, of the one it takes: one a site."""


def knapsack(curves: DamageCurves, sites: Sequence[Site], budget: Budget) -> Plan:
    """The plan of least predicted damage that fits; widths differ from block to block.

    A plan found by a multiplier is taken where a bound says that none is better by more than GAP; else widths
    that no better plan has are left out, and HiGHS solves for the rest.

    The solver's tolerances are absolute, about 1e-6. So damages are given to it as shares of what a plan that
    fits does, widths that alone do more are left out, and what it returns is priced again, exactly: if that
    is too much, it solves again without that plan, and in the end for less; if it is far better than the plan
    known, with finer shares.

    Raises:
        BudgetError: no legal widths fit.
    """
    choices, limit = _choices(curves, sites, budget), budget.limit(sites)
    price = _price(choices, sites, budget)
    best, worth = _by_multiplier(choices, limit, price)
    if best is None:
        raise BudgetError(f"keep {budget.keep:g} of {budget.cost.of}: no legal widths fit. Keep more.")
    best = _filled(choices, best, limit, price)
    least, excesses = _bound(choices, limit, worth)
    if _damage(choices, best) - least <= GAP * _damage(choices, best):
        return _plan(choices, best, budget)
    choices, best = _without_worse(choices, excesses, _damage(choices, best) - least, best)
    return _plan(choices, _improved(choices, best, limit, _price(choices, sites, budget)), budget)


def least_possible(curves: DamageCurves, sites: Sequence[Site], budget: Budget) -> float:
    """No plan that fits is predicted to do less damage; infinite where none fits. Found without a solver."""
    choices, limit = _choices(curves, sites, budget), budget.limit(sites)
    best, worth = _by_multiplier(choices, limit, _price(choices, sites, budget))
    if best is None:
        return float("inf")
    unavoidable = sum(float(curves[each.name].damage()[each.widths].min()) for each in choices)
    return unavoidable + _bound(choices, limit, worth)[0]


def _improved(
    choices: Sequence["Choices"], best: Picks, limit: float, price: Callable[[Picks], float]
) -> Picks:
    """The plan that the solver finds, or `best` where that is none better."""
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
    return best


@dataclass(frozen=True)
class Choices:
    """A site's legal widths, what each costs, and by how much its damage exceeds the least of them."""

    name: str
    widths: list[int]
    costs: Floats
    damages: Floats

    @classmethod
    def of(cls, site: Site, damage: Floats, budget: Budget, blocks: int) -> "Choices":
        """Those of `site`, in a model of so many blocks; `damage` is its damage at every width."""
        widths = budget.widths(site, blocks)
        costs = budget.cost.of_widths(site, widths)
        return cls(site.name, widths, costs, damage[widths] - damage[widths].min())

    def only(self, kept: NDArray[np.int64]) -> "Choices":
        """Those at the positions `kept`."""
        widths = [self.widths[position] for position in kept]
        return Choices(self.name, widths, self.costs[kept], self.damages[kept])


def _choices(curves: DamageCurves, sites: Sequence[Site], budget: Budget) -> list[Choices]:
    blocks = blocks_of(sites)
    return [Choices.of(site, curves[site.name].damage(), budget, blocks) for site in sites]


def _price(choices: Sequence[Choices], sites: Sequence[Site], budget: Budget) -> Callable[[Picks], float]:
    """What a plan costs, by positions among these choices."""
    return lambda picks: budget.cost.of_plan(_plan(choices, picks, budget), sites)


def _plan(choices: Sequence[Choices], picks: Picks, budget: Budget) -> Plan:
    widths = {each.name: each.widths[pick] for each, pick in zip(choices, picks, strict=True)}
    return Plan(widths, f"least predicted damage, keep {budget.keep:g} of {budget.cost.of}")


def _damage(choices: Sequence[Choices], picks: Picks) -> float:
    return float(sum(each.damages[pick] for each, pick in zip(choices, picks, strict=True)))


def _by_multiplier(
    choices: Sequence[Choices], limit: float, price: Callable[[Picks], float]
) -> tuple[Picks | None, float]:
    """A plan that fits, by bisection for the worth of a unit of cost, and that; None where no plan does."""
    dense = max(sum(each.costs.max() for each in choices), np.finfo(float).tiny)
    best = [int(each.costs.argmin()) for each in choices]
    if price(best) > limit:
        return None, 0.0
    low, high = -700.0, 700.0
    for _ in range(64):
        middle = (low + high) / 2
        picks = [int((each.damages + np.exp(middle) * each.costs / dense).argmin()) for each in choices]
        if price(picks) > limit:
            low = middle
            continue
        high = middle
        best = min(best, picks, key=lambda each: _damage(choices, each))
    return best, float(np.exp(high) / dense)


def _filled(choices: Sequence[Choices], picks: Picks, limit: float, price: Callable[[Picks], float]) -> Picks:
    """The plan with what it leaves of the limit spent, where it helps most first."""
    best = list(picks)
    while True:
        spare, gains = limit - price(best), []
        for position, (each, pick) in enumerate(zip(choices, best, strict=True)):
            fits = each.costs <= each.costs[pick] + spare
            other = int(np.where(fits, each.damages, np.inf).argmin())
            gains.append((each.damages[pick] - each.damages[other], position, other))
        gain, position, other = max(gains)
        tried = [*best[:position], other, *best[position + 1 :]]
        if gain <= 0 or price(tried) > limit:
            return best
        best = tried


def _bound(choices: Sequence[Choices], limit: float, worth: float) -> tuple[float, list[Floats]]:
    """No plan that fits does less damage than the first; one that has a width at least its excess more.

    Whatever a unit of cost is worth: the sum, over sites, of the least of damage and the cost's worth, less
    the worth of the limit.
    """
    sums = [each.damages + worth * each.costs for each in choices]
    least = sum(float(each.min()) for each in sums) - worth * limit
    return least, [each - each.min() for each in sums]


def _without_worse(
    choices: Sequence[Choices], excesses: Sequence[Floats], spare: float, best: Picks
) -> tuple[list[Choices], Picks]:
    """The choices without widths whose excess is above `spare`, and the positions of `best` among them.

    Those that rounding could bring below it stay, and so do those of `best`.
    """
    fewer, picks = [], []
    for each, excess, pick in zip(choices, excesses, best, strict=True):
        near = excess <= spare + ROUNDING * excess.max()
        near[pick] = True
        kept = np.nonzero(near)[0]
        fewer.append(each.only(kept))
        picks.append(int(np.searchsorted(kept, pick)))
    return fewer, picks


def _solved(choices: Sequence[Choices], limit: float, most: float, without: Sequence[Picks]) -> Picks | None:
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
    constraints = [
        LinearConstraint(one_each, 1, 1),
        LinearConstraint(csr_array(costs[None, :] / limit * SCALE), -np.inf, SCALE),
        *(LinearConstraint(csr_array(same[None, :]), -np.inf, len(choices) - 1) for same in ruled_out),
    ]
    with without_chatter():
        found = milp(
            values / most,
            constraints=constraints,
            integrality=np.ones(len(rows), dtype=np.int64),
            bounds=Bounds(0, 1),
            options={"mip_rel_gap": GAP, "time_limit": SECONDS},
        )
    if found.x is None:
        return None
    return [int(kept[found.x[rows == row].argmax()]) for row, kept in enumerate(useful)]


def predicted(curves: DamageCurves, plan: Plan) -> float:
    """The damage that the plan is expected to do: the sum of its sites'."""
    return _sum({name: curve.damage() for name, curve in curves.items()}, plan)


def _sum(damages: Mapping[str, Floats], plan: Plan) -> float:
    return float(sum(damages[name][width] for name, width in plan.widths.items()))
