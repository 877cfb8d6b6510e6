"""Latency as a price: straight lines between the widths timed, sums over sites, and its file."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statprune.anatomy.parts import SiteKind
from statprune.anatomy.sites import Site
from statprune.budget.allocate import Budget
from statprune.budget.latency import Latency
from statprune.budget.plan import Plan


def site(block: int, kind: SiteKind, units: int) -> Site:
    return Site(f"blocks.{block}.{kind}", block, kind, units, 1, (), "consumer")


SITES = [site(0, "attention", 4), site(0, "feed_forward", 32), site(1, "attention", 4)]
SECONDS = {
    "blocks.0.attention": [(1, 0.5), (4, 2.0)],
    "blocks.0.feed_forward": [(8, 1.0), (16, 1.0), (32, 3.0)],
    "blocks.1.attention": [(2, 0.25), (4, 0.75)],
}
LATENCY = Latency(SECONDS, {"device": "cpu", "batch": [1, 64]})


@pytest.mark.parametrize(
    ("number", "width", "seconds"),
    [
        (0, 1, 0.5),
        (0, 2, 1.0),
        (0, 3, 1.5),
        (0, 4, 2.0),
        (1, 12, 1.0),
        (1, 20, 1.5),
        (1, 31, 2.875),
        (1, 1, 1.0),  # narrower than any that was timed: no cheaper than that
        (2, 1, 0.25),
        (2, 3, 0.5),
    ],
)
def test_between_two_widths_timed_seconds_lie_on_a_line(number: int, width: int, seconds: float) -> None:
    assert LATENCY.of_width(SITES[number], width) == pytest.approx(seconds, rel=1e-12)


def test_a_plan_costs_the_sum_of_its_sites() -> None:
    plan = Plan({"blocks.0.attention": 2, "blocks.0.feed_forward": 20, "blocks.1.attention": 3})
    assert LATENCY.of_plan(plan, SITES) == pytest.approx(1.0 + 1.5 + 0.5)
    assert LATENCY.of_plan(plan, SITES[:1]) == pytest.approx(1.0)
    assert LATENCY.dense(SITES) == pytest.approx(2.0 + 3.0 + 0.75)


def test_a_budget_of_seconds_is_not_rounded() -> None:
    assert (LATENCY.of, LATENCY.counts) == ("latency", False)
    assert Budget(0.5, LATENCY).limit(SITES) == pytest.approx(2.875)


@given(
    times=st.lists(st.floats(0, 1e3, allow_subnormal=False), min_size=1, max_size=6),
    width=st.integers(1, 64),
)
def test_a_file_gives_back_what_was_measured(times: list[float], width: int) -> None:
    name = SITES[0].name
    latency = Latency({name: [(8 * i + 1, time) for i, time in enumerate(times)]}, {"device": "cpu"})
    found = Latency.of_json(json.loads(json.dumps(latency.to_json())))
    assert found == latency
    assert found.of_width(SITES[0], width) == latency.of_width(SITES[0], width)
    assert min(times) <= found.of_width(SITES[0], width) <= max(times)


def test_the_file_says_where_it_was_measured() -> None:
    content = json.loads(json.dumps(LATENCY.to_json()))
    assert content["conditions"] == {"device": "cpu", "batch": [1, 64]}
    assert content["seconds"]["blocks.1.attention"] == [[2, 0.25], [4, 0.75]]
    assert Latency.of_json(content) == LATENCY
