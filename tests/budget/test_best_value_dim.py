"""The number of columns that a budget loses least with, against solving for every one of them."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from statprune.anatomy.sites import Site
from statprune.budget import value_dim
from statprune.budget.allocate import Budget
from statprune.budget.cost import Cost, with_value_dim
from statprune.budget.damage import DamageCurve, DamageCurves
from statprune.budget.knapsack import knapsack, least_possible, predicted
from statprune.budget.plan import Plan
from statprune.budget.restrictions import Restrictions
from statprune.budget.value_dim import WORTH, best_value_dim, dims_of, of_values, values_name
from statprune.errors import BudgetError
from tests.budget.test_knapsack import curves, sites

HEAD_DIM = 8
PRICE = Cost("params", 8)


def narrowable() -> list[Site]:
    """Heads of 8 columns, four fifths of whose price are their columns'."""
    values = {"head_dim": HEAD_DIM, "value_dim": HEAD_DIM, "parameters_per_column": 5, "macs_per_column": 5}
    return [replace(site, **values) if site.kind == "attention" else site for site in sites()]


def of_heads(seed: int, size: float) -> dict[str, DamageCurve]:
    """What values lose, up to about `size`."""
    generator, made = np.random.default_rng(seed), {}
    for site in sites():
        if site.kind == "attention":
            error = np.append(np.sort(generator.random(HEAD_DIM))[::-1] ** 2, 0.0)
            made[values_name(site)] = DamageCurve(
                error, [(HEAD_DIM // 2, float(size * error[HEAD_DIM // 2]))]
            )
    return made


def by_trying_all(made: DamageCurves, values: DamageCurves, budget: Budget) -> tuple[float, int | None]:
    """The least damage, and with how many columns; every number is solved for."""
    found = {}
    for dim in dims_of(values, narrowable()):
        own = with_value_dim(narrowable(), dim)
        keep = min(1.0, budget.limit(narrowable()) / PRICE.dense(own))
        try:
            plan = knapsack(made, own, replace(budget, keep=keep))
        except BudgetError:
            continue
        found[dim] = predicted(made, plan) + of_values(values, dim)
    best = min(found, key=lambda dim: found[dim])
    if None in found and found[best] > WORTH * found[None]:
        best = None
    return found[best], best


@pytest.fixture
def solved(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """The numbers of columns that were solved for, as they come."""
    asked: list[int | None] = []
    own = value_dim._at

    def counting(*given: object) -> Plan:
        asked.append(given[-1])  # type: ignore[arg-type]
        return own(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(value_dim, "_at", counting)
    return asked


@pytest.mark.parametrize("keep", [0.35, 0.6, 0.9])
def test_it_is_the_one_that_trying_all_finds(keep: float, solved: list[int | None]) -> None:
    chosen, spared = set[int | None](), 0
    for seed, size in product(range(8), (0.02, 0.2, 2.0)):
        made, values, budget = curves(seed), of_heads(seed, size), Budget(keep, PRICE, 4)
        dims = dims_of(values, narrowable())
        solved.clear()
        plan = best_value_dim(knapsack, made, values, narrowable(), budget, dims)
        damage, best = by_trying_all(made, values, budget)
        assert plan.value_dim == best
        assert predicted(made, plan) + of_values(values, best) == pytest.approx(damage)
        chosen.add(best)
        spared += len(dims) - len(solved)
    assert spared > 0
    assert len(chosen) > 1


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("restrictions", [Restrictions(), Restrictions({"attention": 2}, (-1,), {})])
def test_no_plan_is_below_the_bound(keep: float, restrictions: Restrictions) -> None:
    shares = []
    for seed in range(10):
        made, budget = curves(seed), Budget(keep, PRICE, 4, restrictions)
        try:
            damage = predicted(made, knapsack(made, sites(), budget))
        except BudgetError:
            assert least_possible(made, sites(), budget) == np.inf
            continue
        shares.append(least_possible(made, sites(), budget) / damage)
    assert max(shares, default=0.0) <= 1 + 1e-12
    assert np.mean(shares or [1.0]) > 0.5


def test_where_nothing_fits_the_first_refusal_is_told(solved: list[int | None]) -> None:
    """All columns are asked for before fewer; where those are refused, fewer may fit."""
    made, values = curves(0), of_heads(0, 0.02)
    dims: Sequence[int | None] = dims_of(values, narrowable())
    ask: Callable[[float], Plan] = lambda keep: best_value_dim(  # noqa: E731
        knapsack, made, values, narrowable(), Budget(keep, PRICE, 4), dims
    )
    with pytest.raises(BudgetError, match=r"keep 0\.01 of params"):
        ask(0.01)
    assert solved == list(dims)
    least = next(keep for keep in np.arange(0.1, 0.9, 0.01) if _fits(ask, float(keep)))
    with pytest.raises(BudgetError):
        knapsack(made, narrowable(), Budget(float(least), PRICE, 4))


def _fits(ask: Callable[[float], Plan], keep: float) -> bool:
    try:
        ask(keep)
    except BudgetError:
        return False
    return True
