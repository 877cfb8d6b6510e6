"""Widths of experts: whole multiples of 8, and the same share in every part where blocks are to be alike."""

import numpy as np
import pytest
import torch

from statprune.anatomy.lookup import anatomy_of
from statprune.budget import plan as plans
from statprune.budget.allocate import Budget, tied, uniform
from statprune.budget.cost import Cost
from statprune.budget.curves import Curve
from statprune.budget.damage import DamageCurve
from statprune.budget.knapsack import knapsack
from statprune.budget.restrictions import Restrictions
from statprune.budget.uniform import uniform_knapsack
from statprune.errors import PlanError
from tests.tiny import tiny_model

COST = Cost("params", 12)


@pytest.fixture(scope="module")
def sites():
    return anatomy_of(tiny_model("qwen2_moe", mlp_only_layers=[1], shared_expert_intermediate_size=64)).sites


@pytest.mark.parametrize("width", [7, 12, 39])
def test_other_widths_are_refused(width: int, sites) -> None:
    below = width // 8 * 8
    advice = rf"multiples of 8\. Give {f'{below} or ' if below else ''}{below + 8}\."
    with pytest.raises(PlanError, match=rf"blocks\.0\.experts: cannot keep {width} .*{advice}"):
        plans.fit({"blocks.0.experts": width}, sites)
    with pytest.raises(PlanError, match=advice):
        Restrictions(pins={"blocks.0.experts": width}).check(sites)
    assert plans.fit({"blocks.1.feed_forward": width}, sites)


def test_experts_that_are_no_multiple_keep_all_or_a_multiple() -> None:
    sites = anatomy_of(tiny_model("mixtral", intermediate_size=44)).sites
    assert Budget(0.5, COST, 1).widths(sites[1], 3) == [8, 16, 24, 32, 40, 44]
    assert Budget(0.5, COST, 12).widths(sites[1], 3) == [24, 44]
    assert plans.fit({sites[1].name: 44}, sites)[sites[1]] == 44


@pytest.mark.parametrize("multiple", [1, 8])
def test_allocations_choose_legal_widths(multiple: int, sites) -> None:
    curves = {site.name: DamageCurve(np.linspace(1, 0, site.units + 1), [(1, 1.0)]) for site in sites}
    for keep in (0.4, 0.6, 0.9):
        budget = Budget(keep, COST, multiple)
        for plan in (knapsack(curves, sites, budget), uniform_knapsack(curves, sites, budget)):
            assert all(site.allows(plan[site]) for site in sites)
            assert COST.of_plan(plan, sites) <= keep * COST.dense(sites)


def test_uniform_parts_keep_the_same_share(sites) -> None:
    line = {site.name: torch.linspace(1, 0, site.units + 1, dtype=torch.float64) for site in sites}
    curves = {name: Curve(output=each, trailing=each, steps=each[:-1]) for name, each in line.items()}
    plan = uniform(curves, sites, Budget(0.6, COST, 8))
    assert plan.is_uniform()
    by_part = {site.part: (plan[site], site.units) for site in sites if site.kind == "feed_forward"}
    assert {part: units for part, (_, units) in by_part.items()} == {
        "shared_expert": 64,
        "experts": 40,
        "feed_forward": 40,
    }
    share = by_part["shared_expert"][0] / 64
    assert 0 < share < 1
    for kept, units in by_part.values():
        assert share - 8 / units < kept / units <= share or kept == 8


def test_tied_parts_are_floored_and_never_below_the_least() -> None:
    assert tied({"a": [8, 16, 24, 32]}) == [{"a": 8}, {"a": 16}, {"a": 24}, {"a": 32}]
    found = tied({"b": [10, 20, 30], "a": [8, 16, 24, 32]})
    assert found == [{"a": 8, "b": 10}, {"a": 16, "b": 10}, {"a": 24, "b": 20}, {"a": 32, "b": 30}]
