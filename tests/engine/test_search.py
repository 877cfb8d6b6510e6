"""The coordinate search over two tilts: which plans it tries, and that it leaves models alone."""

from math import exp

import numpy as np
import pytest
import torch

import statprune
from statprune.anatomy.lookup import anatomy_of
from statprune.budget.allocate import Budget
from statprune.budget.cost import Cost
from statprune.budget.damage import DamageCurve
from statprune.budget.knapsack import knapsack
from statprune.budget.plan import Plan
from statprune.engine.search import search, tilted
from tests.tiny import tiny_batch, tiny_model


def line(units: int, slope: float) -> DamageCurve:
    """Error and damage fall linearly with the width."""
    error = np.linspace(1.0, 0.0, units + 1)
    half = units // 2
    return DamageCurve(error, [(half, slope * float(error[half]))])


@pytest.fixture
def model():
    return tiny_model("llama")


def curves_of(model, slope: float = 1.0) -> dict[str, DamageCurve]:
    return {site.name: line(site.units, slope) for site in anatomy_of(model).sites}


def test_a_tilt_scales_damages_by_depth_and_kind(model) -> None:
    sites = anatomy_of(model).sites
    curves = curves_of(model)
    found = tilted(curves, sites, depth=0.8, kind=0.6)
    for site in sites:
        sign = 0.5 if site.kind == "attention" else -0.5
        factor = exp(0.8 * (site.block / 2 - 0.5) + 0.6 * sign)
        np.testing.assert_allclose(found[site.name].damage(), factor * curves[site.name].damage(), rtol=1e-12)


def allocate(model, keep: float = 0.6):
    sites = anatomy_of(model).sites
    return lambda curves: knapsack(curves, sites, Budget(keep, Cost("params", 12), 4))


def test_the_best_plan_that_was_measured_wins(model) -> None:
    """The divergence rewards neurons in the first block: the search must tilt that way."""
    sites = anatomy_of(model).sites
    seen: list[Plan] = []

    def measure(plan: Plan) -> float:
        seen.append(plan)
        return -float(plan.widths["blocks.0.feed_forward"])

    plan, trials = search(curves_of(model), sites, allocate(model), measure, trials=7)
    assert len(seen) == len(trials) <= 7
    assert trials[0].depth == trials[0].kind == 0
    assert min(trial.divergence for trial in trials) == -plan.widths["blocks.0.feed_forward"]
    assert plan.widths["blocks.0.feed_forward"] > seen[0].widths["blocks.0.feed_forward"]
    assert len({tuple(each.widths.values()) for each in seen}) == len(seen), "a plan was measured twice"


def test_one_trial_is_the_untilted_plan(model) -> None:
    sites = anatomy_of(model).sites
    plan, trials = search(curves_of(model), sites, allocate(model), lambda plan: 0.0, trials=1)
    assert plan.widths == allocate(model)(curves_of(model)).widths
    assert len(trials) == 1
    with pytest.raises(ValueError, match="at least 1"):
        search(curves_of(model), sites, allocate(model), lambda plan: 0.0, trials=0)


def test_trials_leave_the_model_alone_and_the_best_is_carried_out() -> None:
    model = tiny_model("bert")
    batches = [tiny_batch(model, rows=8, length=12, seed=seed) for seed in range(3)]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    dry = statprune.compress(model, data=batches, keep=0.6, multiple=4, search=True, dry_run=True)
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

    made = statprune.compress(model, data=batches, keep=0.6, multiple=4, search=True)
    assert made.plan.widths == dry.plan.widths
    tried = made.trace.search
    assert len(tried) >= 2
    best = min(tried, key=lambda each: each["divergence"])
    assert best["widths"] == dict(made.plan.widths)
    assert "search" in made.trace.seconds
