"""Allocation: never above the budget, as close below as units allow, and the published rule by hand."""

from math import sqrt

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from statprune.anatomy.sites import Site
from statprune.budget.allocate import Budget, published, uniform
from statprune.budget.cost import Cost
from statprune.budget.curves import Curve
from statprune.budget.plan import full
from statprune.errors import BudgetError

HIDDEN, HEAD_DIM = 32, 8


def sites_of(blocks: int, heads: int, neurons: int) -> list[Site]:
    sites = []
    for block in range(blocks):
        sites.append(
            Site(f"blocks.{block}.attention", block, "attention", heads, HEAD_DIM, (), "out", 1, HEAD_DIM)
        )
        sites.append(Site(f"blocks.{block}.feed_forward", block, "feed_forward", neurons, 1, (), "down"))
    costs = {
        "attention": {"parameters_per_unit": 4 * HIDDEN * HEAD_DIM, "macs_per_unit": 4 * HIDDEN * HEAD_DIM},
        "feed_forward": {"parameters_per_unit": 2 * HIDDEN, "macs_per_unit": 2 * HIDDEN},
    }
    return [Site(**{**vars(site), **costs[site.kind], "parameters_fixed": HIDDEN}) for site in sites]


def curves_of(sites: list[Site], seed: int) -> dict[str, Curve]:
    generator = torch.Generator().manual_seed(seed)
    curves = {}
    for site in sites:
        pivots = torch.rand(site.units, generator=generator, dtype=torch.float64).sort(descending=True).values
        squares = torch.cat([pivots.square().flip(0).cumsum(0).flip(0), torch.zeros(1, dtype=torch.float64)])
        errors = squares.sqrt()
        steps = pivots if site.kind == "feed_forward" else errors[:-1]
        curves[site.name] = Curve(output=errors, trailing=errors, steps=steps)
    return curves


@given(
    blocks=st.integers(1, 4),
    heads=st.integers(1, 6),
    neurons=st.integers(8, 90),
    keep=st.floats(0.35, 1.0),
    of=st.sampled_from(["params", "macs"]),
    seed=st.integers(0, 1000),
    rule=st.sampled_from(["uniform", "published"]),
    multiple=st.sampled_from([1, 8, 16]),
)
def test_a_plan_is_within_budget_and_nothing_more_fits(
    blocks: int, heads: int, neurons: int, keep: float, of: str, seed: int, rule: str, multiple: int
) -> None:
    sites = sites_of(blocks, heads, neurons)
    budget = Budget(keep, Cost(of, 16), multiple)
    curves = curves_of(sites, seed)
    try:
        budget.require_reachable(sites)
    except BudgetError:
        with pytest.raises(BudgetError):
            uniform(curves, sites, budget)
        return
    plan = (
        uniform(curves, sites, budget) if rule == "uniform" else published(curves, sites, budget, "encoder")
    )
    cost, dense = budget.cost.of_plan(plan, sites), budget.cost.dense(sites)
    assert cost <= keep * dense + 1e-6
    for site in sites:
        assert 1 <= plan[site] <= site.units
        if site.kind == "feed_forward":
            assert plan[site] % multiple == 0 or plan[site] == site.units
    # Nothing more fits: one more step of neurons, everywhere (uniform) or anywhere, is over the budget.
    forward = [site for site in sites if site.kind == "feed_forward"]
    wider = {site.name: min(site.units, (plan[site] // multiple + 1) * multiple) for site in forward}
    prices = [(wider[site.name] - plan[site]) * budget.cost.per_unit(site) for site in forward]
    prices = [sum(prices)] if rule == "uniform" else prices
    for price in prices:
        assert price == 0 or cost + price > budget.limit(sites)


def test_the_published_rule_by_hand() -> None:
    """Two blocks, two heads, two neurons: every number below is worked out on paper."""
    sites = sites_of(2, 2, 2)
    attention, forward = sites[::2], sites[1::2]
    head_errors = {0: [10.0, 4.0, 0.0], 1: [8.0, 1.0, 0.0]}
    pivots = {0: [3.0, 1.0], 1: [2.0, 0.5]}
    curves = {}
    for site in attention:
        errors = torch.tensor(head_errors[site.block], dtype=torch.float64)
        curves[site.name] = Curve(errors, errors, errors[:-1])
    for site in forward:
        steps = torch.tensor(pivots[site.block], dtype=torch.float64)
        trailing = torch.tensor([sqrt(steps[0] ** 2 + steps[1] ** 2), steps[1], 0.0], dtype=torch.float64)
        curves[site.name] = Curve(trailing, trailing, steps)
    # A head costs 1024, a neuron 64, a bias 32: dense 4 * 1024 + 4 * 64 + 4 * 32 = 4480.
    # Room for 3 heads, 3 neurons and the biases, but heads come two at a time, one average head a block:
    #   2 heads (one a block): every neuron fits; cut-off min(10 (1 + sqrt 2), 8 * 2) = 16, trailing 0: 16.
    #   4 heads: 4096 + 128 leave room for 2 neurons, none spare: only where keep allows.
    budget = Budget(0.8, Cost("params", 1), multiple=1)
    assert budget.limit(sites) == 3584
    plan = published(curves, sites, budget, "encoder")
    assert [plan[site] for site in attention] == [1, 1]
    assert [plan[site] for site in forward] == [2, 2]
    # 4 heads and 3 neurons fit into 4 * 1024 + 3 * 64 + 128 = 4416. Cut-off 0; the neuron dropped is the one
    # with the smaller weighted pivot: 1.0 (1 + sqrt 2) = 2.41 against 0.5 * 2 = 1, so block 1's second; mean
    # trailing 0.25, distance |0 - 0.5| = 0.5, nearer than 16 for one head a block.
    budget = Budget(4416 / 4480, Cost("params", 1), multiple=1)
    plan = published(curves, sites, budget, "encoder")
    assert [plan[site] for site in attention] == [2, 2]
    assert [plan[site] for site in forward] == [2, 1]


def test_depth_weights_are_for_encoders_only() -> None:
    sites = sites_of(2, 1, 16)
    curves = curves_of(sites, 0)
    forward = sites[1::2]
    # The later block's neurons are 1.1 times as large: unweighted they win, sqrt(2) + 1 against 2 they lose.
    steps = {0: torch.full((16,), 1.0), 1: torch.full((16,), 1.1)}
    for site in forward:
        pivots = steps[site.block].double()
        curves[site.name] = Curve(curves[site.name].output, curves[site.name].trailing, pivots)
    budget = Budget((2 * 1024 + 4 * 32 + 24 * 64) / Cost("params", 1).dense(sites), Cost("params", 1), 8)
    assert [published(curves, sites, budget, "encoder")[site] for site in forward] == [16, 8]
    assert [published(curves, sites, budget, "decoder")[site] for site in forward] == [8, 16]


def test_a_share_below_the_narrowest_plan_is_refused_with_the_smallest_possible() -> None:
    sites = sites_of(2, 4, 64)
    with pytest.raises(BudgetError, match=r"keep 0.1 of params cannot be reached.*0\.1938"):
        Budget(0.1, Cost("params", 1)).require_reachable(sites)


def test_keeping_everything_is_the_full_plan() -> None:
    sites = sites_of(3, 4, 20)
    budget = Budget(1.0, Cost("macs", 128))
    for plan in (
        uniform(curves_of(sites, 1), sites, budget),
        published(curves_of(sites, 1), sites, budget, "decoder"),
    ):
        assert plan.widths == full(sites).widths
