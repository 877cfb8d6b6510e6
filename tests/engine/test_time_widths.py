"""What widths cost: on this machine's clock, and on one that tells what it is made to."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from statprune.anatomy.lookup import anatomy_of
from statprune.anatomy.producers import module_at
from statprune.budget.latency import Latency
from statprune.budget.plan import fit, full
from statprune.calibration.stream import Stream
from statprune.engine import latency
from statprune.engine.latency import REPEATS, time_widths
from statprune.surgery.linear import weight_of
from tests.tiny import random_cut, tiny_batch, tiny_model

FAMILIES = ("llama", "gpt2", "bert", "opt", "distilbert")


@pytest.mark.parametrize("family", FAMILIES)
def test_every_site_has_times_that_rise_with_its_width(family: str) -> None:
    model = tiny_model(family)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = time_widths(model, anatomy_of(model), tiny_batch(model, rows=3, length=10))
    sites = anatomy_of(model).sites
    assert set(found.seconds) == {site.name for site in sites}
    for site in sites:
        widths, seconds = zip(*found.seconds[site.name], strict=True)
        assert list(widths) == sorted(set(widths))
        assert (widths[0], widths[-1]) == (1, site.units)
        assert list(seconds) == sorted(seconds)
        assert seconds[0] >= 0
    assert found.dense(sites) > 0
    assert {"device": "cpu", "threads": torch.get_num_threads(), "batch": 3, "seq_len": 10}.items() <= (
        found.conditions.items()
    )
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [(site.units, site.name) for site in anatomy_of(model).sites] == [(s.units, s.name) for s in sites]
    assert not any(module._forward_hooks or "forward" in vars(module) for module in model.modules())


def widths_of(model: PreTrainedModel, block: nn.Module) -> tuple[int, int]:
    """Heads (groups) and neurons of a block, read off its weights' shapes."""
    attention, forward = anatomy_of(model).sites_of_block(0)
    out, down = (weight_of(module_at(block, site.consumer)) for site in (attention, forward))
    return out.shape[1] // attention.columns, down.shape[1]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple[int, int]]]:
    """Makes the clock go on by `cost(heads, neurons, run)` a block; returns the widths that were run."""

    def made(model: PreTrainedModel, cost: Callable[[int, int, int], float]) -> list[tuple[int, int]]:
        now, ran = [0.0], []

        def advance(_: Stream, block: nn.Module, __: int) -> None:
            # The stream that times walks through copies; the one that stands in front of them is real.
            if not any(block is own for own in anatomy_of(model).blocks):
                ran.append(widths_of(model, block))
                now[0] += cost(*ran[-1], ran.count(ran[-1]))

        monkeypatch.setattr(latency, "advance", advance)
        monkeypatch.setattr(latency, "perf_counter", lambda: now[0])
        return ran

    return made


def timed(model: PreTrainedModel) -> Latency:
    return time_widths(model, anatomy_of(model), tiny_batch(model))


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert"])
def test_times_that_add_up_are_found_exactly(family: str, clock: Any) -> None:
    model = tiny_model(family)
    clock(model, lambda heads, neurons, _: 7 + 5 * heads + 0.25 * neurons)
    found, sites = timed(model), anatomy_of(model).sites
    assert found.dense(sites) == pytest.approx(3 * (7 + 5 * sites[0].units + 0.25 * 40))
    plan = fit({"blocks.0.feed_forward": 1, "blocks.2.attention": 1, "blocks.1.feed_forward": 13}, sites)
    spared = 0.25 * (39 + 27) + 5 * (sites[0].units - 1)
    assert found.of_plan(full(sites), sites) - found.of_plan(plan, sites) == pytest.approx(spared)


def test_the_median_of_alternating_runs_without_the_first(clock: Any) -> None:
    """Slow first runs, and three outliers each, leave no trace; no variant runs twice before all have run."""
    model = tiny_model("llama")

    def cost(heads: int, neurons: int, run: int) -> float:
        return 1e6 if run == 1 else 1e3 if run in (4, 6, 8) else heads + neurons

    ran = clock(model, cost)
    found, sites = timed(model), anatomy_of(model).sites
    widths = {site.kind: [w for w, _ in found.seconds[site.name]] for site in sites}
    variants = {(w, 1) for w in widths["attention"]} | {(1, w) for w in widths["feed_forward"]}
    assert set(ran) == variants
    round_ = len(ran) // (REPEATS + 1)
    assert all(ran[start : start + round_] == ran[:round_] for start in range(0, len(ran), round_))
    # (1, 1) is run for either kind, so that no timing has more than three slow ones.
    spared = found.dense(sites) - found.of_plan(fit({"blocks.0.feed_forward": 20}, sites), sites)
    assert spared == pytest.approx(20)


def test_a_wider_site_is_never_cheaper(clock: Any) -> None:
    model = tiny_model("bert")
    clock(model, lambda heads, neurons, _: 100 - heads - 0.5 * neurons)
    for pairs in timed(model).seconds.values():
        assert {seconds for _, seconds in pairs} == {pairs[0][1]}
        assert pairs[0][1] > 0


def test_blocks_of_one_shape_are_timed_once_and_others_on_their_own(clock: Any) -> None:
    model = random_cut(tiny_model("llama"), {"blocks.1.feed_forward": range(16)})
    ran = clock(model, lambda heads, neurons, _: heads + neurons)
    found, sites = timed(model), anatomy_of(model).sites
    assert found.seconds["blocks.0.feed_forward"] == found.seconds["blocks.2.feed_forward"]
    assert found.seconds["blocks.1.feed_forward"][-1][0] == 16
    assert found.seconds["blocks.0.feed_forward"][-1][0] == 40
    assert (ran.count((1, 40)), ran.count((1, 16))) == (REPEATS + 1, REPEATS + 1)
    assert found.dense(sites) == pytest.approx(2 * (2 + 40) + 2 + 16)
