"""Values of heads narrowed: nothing is lost where they are of low rank; budgets, folders, refusals."""

import json
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module

import statprune
from statprune.anatomy.head_values import NarrowReader, NarrowValues
from statprune.anatomy.lookup import anatomy_of
from statprune.anatomy.producers import module_at
from statprune.budget.allocate import Budget
from statprune.budget.cost import Cost, with_value_dim
from statprune.budget.plan import Plan
from statprune.checkpoint.load import load
from statprune.engine.refit import narrow, refit
from statprune.engine.trace import Trace
from statprune.errors import BudgetError, InputError, ModelError, PlanError
from tests.tiny import tiny_batch, tiny_model

FAMILIES = ("llama", "qwen2", "gpt_neo", "bert", "deberta-v2", "bart", "mixtral", "vit")
LOW = 3


@torch.no_grad()
def low_rank(family: str) -> Any:
    """A model whose heads have values of LOW directions, biases among them."""
    model = tiny_model(family)
    for site in anatomy_of(model).sites:
        if site.values_apart:
            values = module_at(anatomy_of(model).blocks[site.block], site.carrier.path)
            for rows in values.weight.split(site.head_dim):
                mix = torch.randn(site.head_dim - LOW, LOW, generator=torch.Generator().manual_seed(1))
                rows[LOW:] = mix @ rows[:LOW]
            if values.bias is not None:
                values.bias.zero_()
    return model


def batches(model: Any) -> list[Any]:
    return [tiny_batch(model, rows=80, length=20, seed=1)]


def outputs(model: Any) -> torch.Tensor:
    return model(**tiny_batch(model, rows=5, length=16, seed=9))[0]


def whole(model: Any) -> dict[str, int]:
    return {site.name: site.units for site in anatomy_of(model).sites}


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_values_of_low_rank_lose_nothing(family: str, tmp_path: Path) -> None:
    model = low_rank(family)
    expected, before = outputs(model), sum(each.numel() for each in model.parameters())
    result = statprune.compress(
        model, data=batches(model), plan=whole(model), value_dim=LOW, out=tmp_path / "out"
    )
    off = (outputs(result.model) - expected).abs().max() / expected.abs().max()
    assert off < 2e-3  # of ridges
    anatomy = anatomy_of(result.model)
    narrow = [site for site in anatomy.sites if site.values_apart]
    assert {site.value_dim for site in narrow} == {LOW}
    gone = sum((s.head_dim - LOW) * s.parameters_per_column * s.units for s in narrow)
    assert before - sum(each.numel() for each in result.model.parameters()) == gone
    assert result.record["cost"]["params"]["kept"] == Cost("params", 8).dense(anatomy.sites)
    opened = load(tmp_path / "out").model
    assert torch.equal(outputs(opened), outputs(result.model))
    assert opened.config.value_dim == LOW


def test_the_price_of_a_head_is_that_of_its_weights() -> None:
    model = low_rank("llama")
    sites = anatomy_of(model).sites
    made = statprune.compress(model, data=batches(model), plan=whole(model), value_dim=LOW).model
    for cost in (Cost("params", 8), Cost("macs", 8)):
        assert cost.dense(with_value_dim(sites, LOW)) == cost.dense(anatomy_of(made).sites)


def test_a_budget_narrows_values_where_that_loses_least(tmp_path: Path) -> None:
    """Of itself with per-layer widths; and a measurement answers alike."""
    model = low_rank("llama")
    kept = statprune.plan(model, data=batches(model), out=tmp_path / "plan")
    made = statprune.compress(model, measured=tmp_path / "plan", keep=0.8)
    assert made.plan.value_dim in (3, 4)
    assert made.record["cost"]["params"]["share"] <= 0.8
    assert "columns of each head's values" in made.plan.why
    assert made.trace.predicted == pytest.approx(kept.predicted(made.plan))
    answered = statprune.answer(low_rank("llama"), measured=tmp_path / "plan", keeps=[0.8]).answers[0]
    assert answered.plan == made.plan
    for more in ({"widths": "uniform"}, {"value_dim": 8}, {"protect": [1]}):
        again = low_rank("llama")
        assert statprune.compress(again, measured=tmp_path / "plan", keep=0.8, **more).plan.value_dim is None


def test_a_plan_file_says_it_too(tmp_path: Path) -> None:
    model = low_rank("llama")
    made = statprune.compress(model, data=batches(model), plan={"blocks.0.feed_forward": 16}, value_dim=LOW)
    (tmp_path / "plan.json").write_text(json.dumps(made.record["plan"]))
    again = low_rank("llama")
    other = statprune.compress(again, data=batches(again), plan=tmp_path / "plan.json")
    assert torch.equal(outputs(made.model), outputs(other.model))


@pytest.mark.parametrize(
    ("family", "options", "error", "told"),
    [
        ("llama", {"value_dim": 9}, PlanError, "from 1 to 8"),
        ("llama", {"value_dim": 0}, InputError, "at least 1"),
        ("llama", {"value_dim": 4, "method": "stat"}, InputError, "method refit"),
        ("gpt2", {"value_dim": 4}, PlanError, "weight of their own"),
        ("llama", {"value_dim": 4, "widths": "stock"}, InputError, "no stock config"),
        ("llama", {"value_dim": 4, "protect": [0]}, PlanError, "a protected block"),
        ("llama", {"value_dim": 4, "of": "latency"}, PlanError, "a budget of latency"),
    ],
)
def test_what_cannot_be_is_refused(family: str, options: dict[str, Any], error: type, told: str) -> None:
    model = tiny_model(family)
    with pytest.raises(error, match=told):
        statprune.compress(model, data=batches(model), keep=0.8, **options)


def test_what_a_plan_file_asks_for_is_refused_too(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({"widths": {"blocks.0.feed_forward": 16}, "value_dim": LOW}))
    model = tiny_model("llama")
    with pytest.raises(PlanError, match="method stat keeps all"):
        statprune.compress(model, data=batches(model), plan=path, method="stat")


def test_an_answer_that_cannot_be_is_refused_before_anything_is_measured() -> None:
    model, passes = tiny_model("llama"), []
    with pytest.raises(PlanError, match="from 1 to 8"):
        statprune.answer(
            model, data=batches(model), keeps=[0.8], value_dim=9, progress=lambda *told: passes.append(told)
        )
    assert not passes


def test_measurements_made_before_know_whole_values_alone() -> None:
    model = low_rank("llama")
    found = replace(statprune.plan(model, data=batches(model), latency=False), values={})
    budget = Budget(0.8, found.price("params"))
    assert found.allocate(budget, "per-layer").value_dim is None
    with pytest.raises(PlanError, match="Measure again"):
        found.allocate(budget, "per-layer", value_dim=LOW)


def test_fewer_columns_reach_smaller_shares() -> None:
    model = low_rank("llama")
    with pytest.raises(BudgetError, match=r"0\.3334 is left"):
        statprune.compress(tiny_model("llama"), data=batches(model), keep=0.25, value_dim=8)
    made = statprune.compress(model, data=batches(model), keep=0.25, value_dim=1)
    assert made.record["cost"]["params"]["share"] <= 0.25


@torch.no_grad()
@pytest.mark.parametrize("family", ["llama", "bert"])
def test_heads_that_add_nothing_are_no_obstacle(family: str) -> None:
    model = low_rank(family)
    anatomy = anatomy_of(model)
    values = module_at(anatomy.blocks[0], anatomy.sites[0].carrier.path)
    values.weight.zero_()
    expected = outputs(model)
    made = statprune.compress(model, data=batches(model), plan=whole(model), value_dim=LOW).model
    off = (outputs(made) - expected).abs().max() / expected.abs().max()
    assert off < 2e-3


def test_hooks_of_accelerate_are_refused_or_left_alone() -> None:
    def hooked() -> Any:
        model = low_rank("llama")
        add_hook_to_module(model.model.layers[0].self_attn.v_proj, ModelHook())
        return model

    model = hooked()
    with pytest.raises(ModelError, match="hooks of accelerate"):
        statprune.compress(model, data=batches(model), keep=0.8, value_dim=LOW)
    assert statprune.compress(hooked(), data=batches(model), keep=0.8).plan.value_dim is None


@torch.no_grad()
@pytest.mark.parametrize("gone", [0, 1])
@pytest.mark.parametrize("family", ["llama", "bert"])
def test_values_are_refitted_as_narrow_as_they_are(family: str, gone: int) -> None:
    """Where there are tokens enough: the outputs of those are nearer to the dense ones than without."""
    off = {}
    for carry in (False, True):
        model = tiny_model(family)
        data = [tiny_batch(model, rows=160, length=20, seed=1)]
        expected, anatomy = model(**data[0])[0], anatomy_of(model)
        widths = {site.name: site.units - gone * (site.kind == "attention") for site in anatomy.sites}
        plan = Plan(widths, "given", LOW)
        refit(model, anatomy, data, plan, Trace(), steps=(partial(narrow, value_dim=LOW, carry=carry),))
        off[carry] = float((model(**data[0])[0] - expected).norm())
    assert off[True] < 0.95 * off[False]


def test_blocks_on_disk_come_out_alike(tmp_path: Path) -> None:
    model = low_rank("llama")
    data = batches(model)
    model.save_pretrained(tmp_path / "dense")
    given: dict[str, Any] = {"data": data, "keep": 0.7, "value_dim": LOW}
    statprune.compress(tmp_path / "dense", out=tmp_path / "off", offload=True, **given)
    made = statprune.compress(low_rank("llama"), **given).model
    assert torch.equal(outputs(load(tmp_path / "off").model), outputs(made))


def test_inspect_and_report_say_how_narrow_they_are(tmp_path: Path) -> None:
    model = low_rank("llama")
    statprune.compress(model, data=batches(model), keep=0.6, value_dim=LOW, out=tmp_path / "out")
    units = [each.unit for each in statprune.inspect(tmp_path / "out").sites if each.part == "attention"]
    assert units
    assert all(each.endswith(f", values of {LOW} of 8 columns") for each in units)
    statprune.report(tmp_path / "out", out=tmp_path / "page.html")
    assert f"{LOW} columns of the values of every head" in (tmp_path / "page.html").read_text()


def test_narrow_values_are_not_narrowed_again() -> None:
    model = low_rank("llama")
    made = statprune.compress(model, data=batches(model), plan=whole(model), value_dim=LOW).model
    with pytest.raises(ModelError, match="3 of 8 columns"):
        statprune.compress(made, data=batches(made), keep=0.8)


class StoppedError(Exception):
    """Someone has stopped the run."""


def test_a_run_that_stops_goes_on_or_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    def stop(stage: str, done: int, *_: Any) -> None:
        if (stage, done) == ("refit", 2):
            raise StoppedError

    model = low_rank("llama")
    given: dict[str, Any] = {"data": batches(model), "keep": 0.6, "value_dim": LOW}
    expected = outputs(model)
    with pytest.raises(StoppedError):
        statprune.compress(model, out=tmp_path / "out", progress=stop, **given)
    assert torch.equal(outputs(model), expected)
    assert not any(isinstance(each, NarrowValues | NarrowReader) for each in model.modules())
    statprune.compress(model, out=tmp_path / "out", resume=True, **given)
    other = low_rank("llama")
    straight = statprune.compress(other, **given).model
    assert torch.equal(outputs(load(tmp_path / "out").model), outputs(straight))


def test_its_folder_opens_without_this_package(tmp_path: Path) -> None:
    model = low_rank("llama")
    made = statprune.compress(model, data=batches(model), keep=0.6, value_dim=LOW, out=tmp_path / "out").model
    torch.save(outputs(made), tmp_path / "expected.pt")
    torch.save(tiny_batch(made, rows=5, length=16, seed=9), tmp_path / "batch.pt")
    code = (
        "import sys, torch, transformers\n"
        "model = transformers.AutoModelForCausalLM.from_pretrained('out', trust_remote_code=True).eval()\n"
        "with torch.no_grad():\n"
        "    found = model(**torch.load('batch.pt'))[0]\n"
        "    made = model.generate(torch.load('batch.pt')['input_ids'][:1, :4], max_new_tokens=4)\n"
        "assert torch.equal(found, torch.load('expected.pt')) and made.shape == (1, 8)\n"
        "assert 'statprune' not in sys.modules\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
