"""Allocation by damages against enumeration of every plan; floors, pins, protected blocks, and prices."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from statprune.anatomy.sites import Site
from statprune.budget import knapsack as solver
from statprune.budget.allocate import Budget
from statprune.budget.cost import Cost, Price
from statprune.budget.damage import DamageCurve, widths_to_measure
from statprune.budget.knapsack import knapsack, predicted
from statprune.budget.latency import Latency
from statprune.budget.plan import Plan
from statprune.budget.restrictions import Restrictions
from statprune.budget.uniform import uniform_knapsack
from statprune.errors import BudgetError, PlanError

BLOCKS, HEADS, NEURONS = 3, 3, 12


def sites() -> list[Site]:
    found = []
    for block in range(BLOCKS):
        for kind, units, each in (("attention", HEADS, 50), ("feed_forward", NEURONS, 7)):
            found.append(
                Site(
                    name=f"blocks.{block}.{kind}",
                    block=block,
                    kind=kind,
                    units=units,
                    columns=1,
                    producers=(),
                    consumer="",
                    parameters_per_unit=each + block,
                    parameters_fixed=2,
                    macs_per_unit=each,
                )
            )
    return found


def curves(seed: int) -> dict[str, DamageCurve]:
    generator = np.random.default_rng(seed)
    made = {}
    for site in sites():
        error = np.sort(generator.random(site.units))[::-1]
        error = np.append(error / error[0], 0.0)
        width = site.units // 2
        made[site.name] = DamageCurve(error, [(width, float(generator.random() * error[width]))])
    return made


def latency() -> Latency:
    seconds = {
        site.name: [(1, 0.2), (site.units // 2, 0.5), (site.units, 1.1 + site.block)] for site in sites()
    }
    return Latency(seconds, {"device": "none"})


PRICES: dict[str, Price] = {"params": Cost("params", 8), "macs": Cost("macs", 8), "latency": latency()}
NONE = Restrictions()
SOME = Restrictions({"attention": 2, "blocks.1.feed_forward": 8}, (-1,), {"blocks.0.feed_forward": 5})


def by_enumeration(
    made: dict[str, DamageCurve], budget: Budget, *, uniform: bool, of: list[Site] | None = None
) -> float:
    """The least damage of all plans that fit."""
    of = of or sites()
    every = [budget.widths(site, BLOCKS) for site in of]
    damages = {name: curve.damage() for name, curve in made.items()}
    best = float("inf")
    for widths in product(*every):
        plan = Plan({site.name: width for site, width in zip(of, widths, strict=True)})
        if uniform and not plan.is_uniform():
            continue
        if budget.cost.of_plan(plan, of) <= budget.limit(of):
            damage = sum(float(damages[name][width]) for name, width in plan.widths.items())
            best = min(best, damage)
    return best


@pytest.mark.parametrize("of", PRICES)
@pytest.mark.parametrize("restrictions", [NONE, SOME], ids=["free", "restricted"])
@pytest.mark.parametrize("seed", range(3))
def test_no_plan_that_fits_does_less_damage(of: str, restrictions: Restrictions, seed: int) -> None:
    made = curves(seed)
    budget = Budget(0.9 if restrictions else 0.75, PRICES[of], 4, restrictions)
    plan = knapsack(made, sites(), budget)
    assert budget.cost.of_plan(plan, sites()) <= budget.limit(sites())
    least = by_enumeration(made, budget, uniform=False)
    assert predicted(made, plan) == pytest.approx(least, rel=2e-3, abs=1e-12)
    if restrictions:
        assert plan.widths["blocks.0.feed_forward"] == 5
        assert plan.widths["blocks.1.feed_forward"] >= 8
        assert min(plan.widths[f"blocks.{block}.attention"] for block in range(BLOCKS)) >= 2
        assert plan.widths["blocks.2.feed_forward"] == NEURONS
        assert plan.widths["blocks.2.attention"] == HEADS


@pytest.mark.parametrize("seed", range(5))
def test_no_plan_that_fits_does_less_than_the_bound(seed: int) -> None:
    made, budget = curves(seed), Budget(0.6, PRICES["params"], 4)
    choices = [solver.Choices.of(each, made[each.name].damage(), budget, BLOCKS) for each in sites()]
    least = by_enumeration(made, budget, uniform=False)
    for worth in np.geomspace(1e-6, 1, 13):
        bound, excesses = solver._bound(choices, budget.limit(sites()), float(worth))
        assert bound <= least * (1 + 1e-9)
        assert all(excess.min() == 0 for excess in excesses)


def test_many_widths_need_no_solver(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan by the multiplier, filled up, is as near to the bound as a plan has to be."""
    many = [
        replace(site, name=f"blocks.{block}.{site.part}", block=block, units=site.units * 200)
        for block in range(24)
        for site in sites()[:2]
    ]
    generator = np.random.default_rng(0)
    made = {
        site.name: DamageCurve(np.linspace(1, 0, site.units + 1) ** generator.uniform(2, 5), [])
        for site in many
    }
    monkeypatch.setattr(solver, "_solved", None)
    budget = Budget(0.6, PRICES["params"], 8)
    plan = knapsack(made, many, budget)
    spare = budget.limit(many) - budget.cost.of_plan(plan, many)
    assert 0 <= spare < max(site.parameters_per_unit for site in many)


@pytest.mark.parametrize("of", PRICES)
@pytest.mark.parametrize("keep", [0.5, 0.75])
def test_no_uniform_plan_that_fits_does_less_damage(of: str, keep: float) -> None:
    made, budget = curves(7), Budget(keep, PRICES[of], 4)
    plan = uniform_knapsack(made, sites(), budget)
    assert plan.is_uniform()
    assert budget.cost.of_plan(plan, sites()) <= budget.limit(sites())
    assert predicted(made, plan) == pytest.approx(by_enumeration(made, budget, uniform=True))


@pytest.mark.parametrize("seed", range(30))
def test_the_limit_holds_exactly_and_one_ruinous_width_spoils_nothing(seed: int) -> None:
    """Units of about 1e9 that differ by 1e-7 of it; damages over twelve orders of magnitude."""
    generator = np.random.default_rng(seed)
    near = [
        replace(site, parameters_per_unit=10**9 // site.units + int(generator.integers(100)))
        for site in sites()
    ]
    made = {}
    for site in near:
        error = np.append(np.sort(10.0 ** generator.uniform(-6, 0, site.units))[::-1], 0.0)
        made[site.name] = DamageCurve(error, [(site.units - 1, float(error[-2]))])
    ruin = made[near[seed % len(near)].name].error
    ruin[0:2] = 1e12
    full = Budget(1.0, PRICES["params"], 4)
    some = Plan({site.name: int(generator.choice(full.widths(site, BLOCKS)[1:])) for site in near})
    cost = full.cost.of_plan(some, near) - int(generator.integers(2))
    budget = Budget(cost / full.cost.dense(near), PRICES["params"], 4)
    plan = knapsack(made, near, budget)
    assert budget.cost.of_plan(plan, near) <= budget.limit(near)
    least = by_enumeration(made, budget, uniform=False, of=near)
    assert predicted(made, plan) == pytest.approx(least, rel=2e-3)


@pytest.mark.parametrize("seed", range(5))
def test_a_pin_that_does_ruinous_damage_leaves_the_others_as_well_off(seed: int) -> None:
    made = curves(seed)
    pinned = "blocks.0.feed_forward"
    made[pinned] = DamageCurve(made[pinned].error, [(6, 1e9)])
    budget = Budget(0.75, PRICES["params"], 4, Restrictions(pins={pinned: 6}))
    plan = knapsack(made, sites(), budget)
    made[pinned] = DamageCurve(np.zeros(NEURONS + 1), [])
    assert predicted(made, plan) == pytest.approx(by_enumeration(made, budget, uniform=False), rel=2e-3)


@pytest.mark.filterwarnings("error")
def test_a_limit_of_nothing_is_refused_without_a_warning() -> None:
    budget = Budget(1e-9, PRICES["params"], 4)
    assert budget.limit(sites()) == 0
    with pytest.raises(BudgetError, match="no legal widths fit"):
        knapsack(curves(0), sites(), budget)


def test_a_solver_that_keeps_exceeding_the_limit_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = Budget(0.5, PRICES["params"], 4)
    limits = []

    def widest(choices: list, limit: float, most: float, without: list) -> list[int]:
        assert len(without) == len(limits)
        limits.append(limit)
        return [len(each.widths) - 1 for each in choices]

    monkeypatch.setattr(solver, "_solved", widest)
    plan = knapsack(curves(0), sites(), budget)
    assert budget.cost.of_plan(plan, sites()) <= budget.limit(sites())
    assert limits == sorted(limits, reverse=True)
    assert len(limits) == solver.ATTEMPTS


def test_what_cannot_be_reached_is_refused() -> None:
    budget = Budget(0.1, PRICES["params"], 4)
    for rule in (knapsack, uniform_knapsack):
        with pytest.raises(BudgetError, match=r"keep 0\.1 of params: no .*widths fit"):
            rule(curves(0), sites(), budget)
    with pytest.raises(BudgetError, match="floors, pins and protected blocks"):
        Budget(0.3, PRICES["params"], 4, SOME).require_reachable(sites())


def test_equal_blocks_that_pins_forbid_are_refused_before_any_curve() -> None:
    pins = {"blocks.0.feed_forward": 6, "blocks.1.feed_forward": 8}
    budget = Budget(1.0, PRICES["params"], 4, Restrictions(pins=pins))
    budget.require_reachable(sites())
    with pytest.raises(BudgetError, match=r"no width is legal in every block: blocks\.0\.feed_forward 6, bl"):
        budget.require_reachable(sites(), same=True)
    # One pin narrows all blocks: what is reachable alone is not where they are equal.
    budget = Budget(0.9, PRICES["params"], 4, Restrictions(pins={"blocks.0.attention": HEADS}))
    narrow = replace(budget, keep=0.5)
    narrow.require_reachable(sites())
    with pytest.raises(BudgetError, match="cannot be reached"):
        narrow.require_reachable(sites(), same=True)


def test_a_pin_that_no_stock_config_can_say_is_refused_with_the_nearest() -> None:
    only = {f"blocks.{block}.attention": [1, 3] for block in range(BLOCKS)}
    limits = Restrictions(pins={"blocks.1.attention": 2}, only=only)
    with pytest.raises(PlanError, match=r"blocks\.1\.attention is pinned to 2 .* one can: 1 or 3"):
        limits.check(sites())
    Restrictions(pins={"blocks.1.attention": 3}, only=only).check(sites())
    with pytest.raises(BudgetError, match="with the fewest heads that stock transformers can open"):
        Budget(0.01, PRICES["params"], 4, Restrictions(only=only)).require_reachable(sites(), same=True)


@pytest.mark.parametrize(
    ("restrictions", "says"),
    [
        (Restrictions({"mlp": 3}), "'mlp' is no site of this model; give blocks.0.attention"),
        (Restrictions({"attention": 4}), "attention: cannot keep 4 units; give a whole number from 1 to 3"),
        (Restrictions({"blocks.0.feed_forward": 0}), "cannot keep 0 units"),
        (Restrictions({"attention": True}), "cannot keep True units"),
        (Restrictions(protect=(3,)), "protected block 3: this model has blocks 0 to 2"),
        (Restrictions(protect=(-4,)), "protected block -4"),
        (Restrictions(pins={"attention": 2}), "'attention' is no site"),
        (Restrictions(pins={"blocks.0.feed_forward": 13}), "from 1 to 12"),
        (Restrictions({"attention": 2}, (), {"blocks.1.attention": 1}), "below its floor 2"),
        (Restrictions({}, (-3,), {"blocks.0.attention": 1}), "its block is protected"),
    ],
)
def test_restrictions_that_make_no_sense_are_refused(restrictions: Restrictions, says: str) -> None:
    with pytest.raises(PlanError, match=says.replace("(", r"\(")):
        restrictions.check(sites())


def test_damage_between_and_beyond_the_widths_measured() -> None:
    """Log-linear between two points, in proportion to the error beyond them, never rising with the width."""
    error = np.array([1.0, 0.4, 0.1, 0.02, 0.0])
    damage = DamageCurve(error, [(3, 0.001), (1, 0.08)]).damage()
    between = np.exp(np.interp(np.log(0.1), np.log([0.02, 0.4]), np.log([0.001, 0.08])))
    np.testing.assert_allclose(damage, [0.08 / 0.4, 0.08, between, 0.001, 0.0])
    one = DamageCurve(error, [(2, 0.05)]).damage()
    np.testing.assert_allclose(one, 0.5 * error)
    odd = DamageCurve(error, [(3, 0.5), (1, 0.1)]).damage()
    assert (np.diff(odd) <= 0).all()
    assert widths_to_measure(error, (0.05, 0.3, 2.0)) == [1, 2]
    assert widths_to_measure(np.zeros(5), (0.05,)) == []


def test_latency_lies_between_the_widths_that_were_timed() -> None:
    found = latency()
    site = sites()[1]
    assert found.of_width(site, 6) == 0.5
    assert found.of_width(site, 9) == pytest.approx((0.5 + 1.1) / 2)
    assert found.dense(sites()) == pytest.approx(2 * sum(1.1 + block for block in range(BLOCKS)))
    assert Latency.of_json(found.to_json()) == found
