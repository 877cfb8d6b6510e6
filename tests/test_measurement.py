"""One measurement as a folder: what it holds, what it refuses, and that it serves every budget."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import statprune
from statprune import measurement as measurements
from statprune.anatomy.lookup import anatomy_of
from statprune.budget.allocate import Budget
from statprune.errors import BudgetError, InputError, OutputError, PlanError
from tests.saved import save_tiny, sentences
from tests.test_pipeline import same_weights
from tests.tiny import tiny_batch, tiny_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("measured")
    save_tiny(root / "llama", "llama")
    statprune.plan(root / "llama", data=sentences(), out=root / "measured", samples=16, seq_len=24)
    return root


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    model = tiny_model("bert")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    batches = [tiny_batch(model, rows=8, length=12, seed=seed) for seed in range(3)]
    made = statprune.plan(model, data=batches, out=tmp_path / "out")
    same_weights(before, model.state_dict())
    found = measurements.read(
        tmp_path / "out", anatomy_of(model), measurements.fingerprint(anatomy_of(model))
    )
    for name, curve in made.curves.items():
        np.testing.assert_array_equal(found.curves[name].error, curve.error)
        assert [tuple(pair) for pair in curve.measured] == list(found.curves[name].measured)
        assert all(divergence >= 0 for _, divergence in curve.measured)
    assert found.latency == made.latency
    assert set(found.latency.seconds) == {site.name for site in anatomy_of(model).sites}
    for pairs in found.latency.seconds.values():
        widths, seconds = zip(*pairs, strict=True)
        assert list(widths) == sorted(widths)
        assert list(seconds) == sorted(seconds)
    for one, two in zip(batches, found.samples.batches, strict=True):
        assert all(torch.equal(one[name], two[name]) for name in one)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_measurement_in_between_changes_nothing(folder: Path) -> None:
    options = {"keep": 0.6, "of": "macs"}
    once = statprune.compress(folder / "llama", data=sentences(), samples=16, seq_len=24, **options)
    twice = statprune.compress(measured=folder / "measured", **options)
    assert once.plan == twice.plan
    same_weights(once.model.state_dict(), twice.model.state_dict())
    assert once.trace.predicted == twice.trace.predicted
    assert once.trace.divergence == twice.trace.divergence


def test_restrictions_hold_to_the_end(folder: Path) -> None:
    made = statprune.compress(
        measured=folder / "measured",
        keep=0.85,
        floors={"attention": 2, "blocks.1.feed_forward": 24},
        protect=[-1],
        pins={"blocks.0.feed_forward": 11},
        multiple=4,
    )
    units = {site.name: site.units for site in anatomy_of(made.model).sites}
    assert units["blocks.0.feed_forward"] == 11
    assert units["blocks.1.feed_forward"] >= 24
    assert (units["blocks.2.attention"], units["blocks.2.feed_forward"]) == (2, 40)
    assert min(units[f"blocks.{block}.attention"] for block in range(3)) == 2


def test_latency_is_a_budget(folder: Path, tmp_path: Path) -> None:
    """Of times that rise with width; those measured of tiny products need not, on a busy machine."""
    shutil.copytree(folder / "measured", tmp_path / "measured")
    file = tmp_path / "measured" / "measurement.json"
    content = json.loads(file.read_text())
    for pairs in content["latency"]["seconds"].values():
        assert all(seconds >= 0 for _, seconds in pairs)
        pairs[:] = [[width, 1e-3 * (1 + width)] for width, _ in pairs]
    file.write_text(json.dumps(content))
    found = measurements.read(tmp_path / "measured", anatomy_of(tiny_model("llama")))
    dense = found.latency.dense(found.sites)
    budget = Budget(1.0, found.price("latency"), multiple=4)
    least = found.latency.of_plan(budget.least(found.sites), found.sites) / dense
    assert least < 1
    keep = (least + 1) / 2
    made = statprune.compress(measured=tmp_path / "measured", keep=keep, of="latency", multiple=4)
    assert found.latency.of_plan(made.plan, found.sites) <= keep * dense + 1e-12


def test_answers_need_the_config_alone(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config only").mkdir()
    (tmp_path / "config only" / "config.json").write_text((folder / "llama" / "config.json").read_text())
    answered = statprune.answer(
        tmp_path / "config only", measured=folder / "measured", keeps=(0.9, 0.6, 0.01), multiple=4
    )
    wide, narrow, none = answered.answers
    assert wide.predicted < narrow.predicted
    assert 0.85 < wide.share <= 0.9
    assert none.plan is None
    assert "cannot be reached" in none.refused
    assert json.loads(json.dumps(answered.to_json()))["answers"][1]["plan"]["widths"] == narrow.plan.widths
    made = statprune.compress(measured=folder / "measured", keep=0.6, multiple=4, dry_run=True)
    assert made.plan == narrow.plan
    assert made.trace.predicted == narrow.predicted


def test_a_measurement_of_another_model_is_refused(folder: Path) -> None:
    other = tiny_model("llama", seed=4)
    with pytest.raises(PlanError, match="whose weights are others than these"):
        statprune.compress(other, measured=folder / "measured", keep=0.6)
    with pytest.raises(PlanError, match="Give that model, or measure this one"):
        statprune.answer(tiny_model("llama", intermediate_size=48), measured=folder / "measured", keeps=[0.6])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": ["x"]}, "both data and a measurement are given"),
        ({"samples": 64}, "samples was settled when"),
        ({"seed": 1}, "seed was settled"),
        ({"method": "stat"}, "method was settled"),
        ({"pins": {"blocks.9.attention": 1}}, "'blocks.9.attention' is no site"),
        ({"keep": 0.01}, "cannot be reached"),
        ({"of": "flops"}, "of is 'flops'; choose one of params, macs, latency"),
    ],
)
def test_what_contradicts_a_measurement_is_refused(folder: Path, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        statprune.compress(measured=folder / "measured", **{"keep": 0.6, **options})


def test_a_folder_that_is_no_measurement_is_refused(folder: Path, tmp_path: Path) -> None:
    content = json.loads((folder / "measured" / "measurement.json").read_text())
    cases = {
        "empty": None,
        "broken": "{",
        "newer": json.dumps(content | {"format": 9}),
        "no samples": json.dumps(content),
    }
    says = {
        "empty": "holds no measurement.json",
        "broken": "cannot be read",
        "newer": "of format 9; this version reads format 1",
        "no samples": "samples.safetensors cannot be read",
    }
    for name, text in cases.items():
        (tmp_path / name).mkdir()
        if text is not None:
            (tmp_path / name / "measurement.json").write_text(text)
        with pytest.raises(PlanError, match=says[name]):
            statprune.compress(folder / "llama", measured=tmp_path / name, keep=0.6)


def test_nothing_is_overwritten_and_unknown_options_are_refused(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in (folder / "measured").iterdir()}
    with pytest.raises(OutputError, match="exists already; nothing is overwritten"):
        statprune.plan(folder / "llama", data=sentences(), out=folder / "measured")
    assert {path.name: path.read_bytes() for path in (folder / "measured").iterdir()} == before
    with pytest.raises(InputError, match="no option 'keep' for a measurement"):
        statprune.plan(folder / "llama", data=sentences(), keep=0.5)
    with pytest.raises(InputError, match="no data; give data, or a measurement"):
        statprune.compress(folder / "llama", keep=0.5)
    with pytest.raises(InputError, match="no model; give model, or a measurement"):
        statprune.compress(data=sentences(), keep=0.5)


def test_latency_that_was_not_measured_is_refused(tmp_path: Path) -> None:
    model = tiny_model("llama")
    batches = [tiny_batch(model, rows=8, length=12)]
    statprune.plan(model, data=batches, out=tmp_path / "out", latency=False)
    with pytest.raises(BudgetError, match="latency was not measured"):
        statprune.compress(model, measured=tmp_path / "out", keep=0.6, of="latency")


def test_the_refit_wants_four_samples() -> None:
    model = tiny_model("llama")
    with pytest.raises(InputError, match="3 calibration samples: method refit holds every fourth one out"):
        statprune.compress(model, data=[tiny_batch(model, rows=3)], keep=0.6)


@pytest.mark.parametrize(
    "options", [{"floors": {"attention": 2}}, {"protect": [0]}, {"search": True}, {"of": "latency"}]
)
def test_method_stat_takes_no_restrictions(options: dict) -> None:
    model = tiny_model("llama")
    with pytest.raises(InputError, match="method stat takes no floors"):
        statprune.compress(model, data=[tiny_batch(model)], keep=0.6, method="stat", **options)
