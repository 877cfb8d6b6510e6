"""How many columns the values of all heads keep: the number with which a budget loses least.

For each number that was measured the rest of the budget is shared out with heads at the price that they
then have; what the values lose is added to what the plan is predicted to lose.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import inf

from statprune.anatomy.sites import Site
from statprune.budget.allocate import Budget
from statprune.budget.cost import Cost, with_value_dim
from statprune.budget.damage import DamageCurve, DamageCurves
from statprune.budget.frontier import Point, frontier
from statprune.budget.knapsack import least_possible, predicted
from statprune.budget.plan import Plan, full
from statprune.errors import BudgetError, PlanError

Rule = Callable[[DamageCurves, Sequence[Site], Budget], Plan]

WORTH = 0.9
"""Values stay whole unless the plan's damage falls below this share: fewer tools open such folders."""

EIGHTHS = 8
"""Numbers of columns are tried in so many steps."""


def values_name(site: Site) -> str:
    """What a survey calls the values of `site`."""
    return f"{site.name}.values"


def columns_tried(site: Site) -> list[int]:
    """Of a head of `site`: numbers of columns below all, ascending."""
    return sorted({max(1, site.head_dim * part // EIGHTHS) for part in range(1, EIGHTHS)} - {site.head_dim})


def dims_of(values: Mapping[str, DamageCurve], sites: Sequence[Site]) -> list[int | None]:
    """What can be chosen from: all columns, and where every site that can say was measured, fewer."""
    apart = [site for site in sites if site.values_apart]
    found: list[int | None] = [None]
    if (
        apart
        and all(values_name(site) in values for site in apart)
        and len({site.head_dim for site in apart}) == 1
    ):
        found += columns_tried(apart[0])
    return found


def require_measured(values: Mapping[str, DamageCurve], sites: Sequence[Site], dim: int) -> None:
    """Refuse to narrow values of which no measurement says what that does.

    Raises:
        PlanError: names the first site.
    """
    for site in sites:
        if site.values_apart and values_name(site) not in values:
            raise PlanError(
                f"value_dim is {dim}, but values of {site.name} were not measured, by an earlier version. "
                f"Measure again, or leave value_dim out."
            )


def of_values(values: Mapping[str, DamageCurve], value_dim: int | None) -> float:
    """The damage that keeping so many columns is expected to do."""
    if value_dim is None:
        return 0.0
    return float(sum(curve.damage()[value_dim] for curve in values.values()))


def best_value_dim(
    rule: Rule,
    curves: DamageCurves,
    values: Mapping[str, DamageCurve],
    sites: Sequence[Site],
    budget: Budget,
    dims: Sequence[int | None],
) -> Plan:
    """The plan of least predicted damage over `dims`; that of all columns, where it is nearly as good.

    Numbers of columns with which no plan can be the one are not solved for. A budget of latency knows all
    columns alone.

    Raises:
        BudgetError: none of them fits.
    """
    found, refused, most = list[tuple[float, Plan]](), list[BudgetError](), inf
    for dim in sorted(dims, key=lambda dim: dim is not None) if isinstance(budget.cost, Cost) else (None,):
        lost = of_values(values, dim)
        if most < inf and lost + least_possible(curves, *_narrow(sites, budget, dim)) > most:
            continue
        try:
            plan = _at(rule, curves, sites, budget, dim)
        except BudgetError as error:
            refused.append(error)
            continue
        damage = predicted(curves, plan) + lost
        found.append((damage, plan))
        most = min(most, damage * (WORTH if dim is None else 1.0))
    if not found:
        raise refused[0]
    best, plan = min(found, key=lambda each: each[0])
    whole = next((each for each in found if each[1].value_dim is None), None)
    return plan if whole is None or best <= WORTH * whole[0] else whole[1]


def frontier_of_dims(
    curves: DamageCurves, values: Mapping[str, DamageCurve], sites: Sequence[Site], budget: Budget
) -> tuple[Point, ...]:
    """As `frontier`, over all numbers of columns that can be chosen from.

    Raises:
        BudgetError: floors and pins leave no legal widths.
    """
    dense, points = budget.cost.dense(sites), list[Point]()
    for dim in dims_of(values, sites) if isinstance(budget.cost, Cost) else [None]:
        own, lost = with_value_dim(sites, dim), of_values(values, dim)
        part = budget.cost.dense(own) / dense
        points += [(share * part, damage + lost) for share, damage in frontier(curves, own, budget)]
    left, least = list[Point](), float("inf")
    for share, damage in sorted(points):
        if damage < least:
            left.append((share, damage))
            least = damage
    return tuple(left)


def _at(rule: Rule, curves: DamageCurves, sites: Sequence[Site], budget: Budget, dim: int | None) -> Plan:
    if dim is None:
        return rule(curves, sites, budget)
    own, rest = _narrow(sites, budget, dim)
    plan = rule(curves, own, rest) if rest.keep < 1 or budget.restrictions else full(sites)
    why = f"least predicted damage, keep {budget.keep:g} of {budget.cost.of}"
    return replace(plan, value_dim=dim, why=f"{why}, {dim} columns of each head's values")


def _narrow(sites: Sequence[Site], budget: Budget, dim: int | None) -> tuple[Sequence[Site], Budget]:
    """The sites at the price that heads have with `dim` columns, and the same budget as a share of that."""
    if dim is None:
        return sites, budget
    own = with_value_dim(sites, dim)
    return own, replace(budget, keep=min(1.0, budget.limit(sites) / budget.cost.dense(own)))
