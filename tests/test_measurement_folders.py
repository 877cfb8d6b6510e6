"""What a measurement's folder must survive, and what `answer` and `compress` ask of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import statprune
from statprune import measurement as measurements
from statprune import planning
from statprune.anatomy.lookup import anatomy_of
from statprune.errors import InputError, OutputError, PlanError
from tests.tiny import tiny_batch, tiny_model


def batches(rows: int = 8) -> list[dict[str, torch.Tensor]]:
    made = [tiny_batch(tiny_model("llama"), rows=rows, length=12, seed=seed) for seed in range(11)]
    made[1]["attention_mask"][0, 9:] = 0
    return made


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("measurements") / "deep" / "measured"
    statprune.plan(tiny_model("llama"), data=batches(), out=folder)
    return folder


def altered(measured: Path, into: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy whose JSON has been changed."""
    into.mkdir()
    content = json.loads((measured / "measurement.json").read_text())
    change(content)
    (into / "measurement.json").write_text(json.dumps(content))
    (into / "samples.safetensors").write_bytes((measured / "samples.safetensors").read_bytes())
    return into


def test_samples_come_back_in_their_order(measured: Path) -> None:
    """More than nine batches: by name, the tenth would come before the second."""
    found = measurements.read(measured, anatomy_of(tiny_model("llama"))).samples
    assert len(found.batches) == 11
    for one, two in zip(batches(), found.batches, strict=True):
        assert set(one) == set(two)
        assert all(torch.equal(one[name], two[name]) for name in one)
    assert found.tokens == sum(int(each["attention_mask"].sum()) for each in batches())


@pytest.mark.parametrize("widths", ["per-layer", "uniform"])
@pytest.mark.parametrize("of", ["params", "macs"])
def test_a_model_in_memory_goes_the_same_way_with_and_without(measured: Path, widths: str, of: str) -> None:
    options: dict[str, Any] = {"keep": 0.7, "widths": widths, "of": of, "multiple": 4}
    once = statprune.compress(tiny_model("llama"), data=batches(), **options)
    twice = statprune.compress(tiny_model("llama"), measured=measured, **options)
    assert once.plan == twice.plan
    for name, value in once.model.state_dict().items():
        assert torch.equal(value, twice.model.state_dict()[name]), name
    for key in ("plan", "cost", "data", "context"):
        assert json.dumps(once.record[key]) == json.dumps(twice.record[key])


def test_a_given_plan_needs_no_curves_but_their_samples(measured: Path) -> None:
    plan = {"blocks.1.feed_forward": 9}
    once = statprune.compress(tiny_model("llama"), data=batches(), plan=plan)
    twice = statprune.compress(tiny_model("llama"), measured=measured, plan=plan)
    assert twice.plan.widths["blocks.1.feed_forward"] == 9
    for name, value in once.model.state_dict().items():
        assert torch.equal(value, twice.model.state_dict()[name]), name


def test_a_search_starts_from_a_measurement(measured: Path) -> None:
    made = statprune.compress(tiny_model("llama"), measured=measured, keep=0.6, search=True)
    assert made.plan.why.endswith("refined by search")
    best = min(made.trace.search, key=lambda trial: trial["divergence"])
    assert best["widths"] == dict(made.plan.widths)


def test_one_weight_more_or_less_is_another_model(measured: Path) -> None:
    model = tiny_model("llama")
    with torch.no_grad():
        model.model.layers[2].mlp.down_proj.weight[5, 7] += 1e-3
    with pytest.raises(PlanError, match="whose weights are others than these"):
        statprune.compress(model, measured=measured, keep=0.6)
    with pytest.raises(PlanError, match="whose weights are others than these"):
        statprune.compress(tiny_model("llama").bfloat16(), measured=measured, keep=0.6)


def test_a_model_that_was_in_memory_must_be_given_again(measured: Path) -> None:
    with pytest.raises(InputError, match="LlamaForCausalLM in memory"):
        statprune.compress(measured=measured, keep=0.6)


def test_a_damaged_samples_file_is_refused(measured: Path, tmp_path: Path) -> None:
    folder = altered(measured, tmp_path / "damaged", lambda content: None)
    samples = folder / "samples.safetensors"
    samples.write_bytes(samples.read_bytes()[:200])
    with pytest.raises(PlanError, match=r"samples\.safetensors is not what was written\. Measure again"):
        statprune.compress(tiny_model("llama"), measured=folder, keep=0.6)


@pytest.mark.parametrize("text", ["[]", "null", '{"curves": {}}', "\\u"])
def test_what_is_no_measurement_of_this_version_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "measurement.json").write_text(text)
    with pytest.raises(PlanError, match=r"of format None|cannot be read"):
        statprune.answer(measured=tmp_path, keeps=[0.6])


def test_an_existing_folder_is_refused_before_the_model_is_opened(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="exists already"):
        statprune.plan("no/such-model", data=["x"], out=tmp_path)


def never(*_: Any, **__: Any) -> Any:
    raise AssertionError("a pass over the data has begun")


def test_a_folder_that_can_never_be_made_is_refused_before_measuring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "survey", never)
    (tmp_path / "file").write_text("")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    for out in ("file/deep", "file/deep/deeper", "gone/deep"):
        with pytest.raises(OutputError, match=r"cannot be made: .*(file|gone) is no folder"):
            statprune.plan(tiny_model("llama"), data=batches(), out=tmp_path / out)
    with pytest.raises(OutputError, match="exists already"):
        measurements.require_free(tmp_path / "gone")
    measurements.require_free(tmp_path / "new" / "deep")
    monkeypatch.setattr(measurements.os, "access", lambda *_: False)
    with pytest.raises(OutputError, match="cannot be written to"):
        measurements.require_free(tmp_path / "new" / "deep")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"floors": {"blocks.9.attention": 1}}, "'blocks.9.attention' is no site"),
        ({"pins": {"blocks.9.attention": 1}}, "'blocks.9.attention' is no site"),
        ({"protect": [9]}, "protected block 9"),
    ],
)
def test_what_the_model_does_not_have_is_refused_before_measuring(
    options: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "survey", never)
    with pytest.raises(PlanError, match=said):
        statprune.answer(tiny_model("llama"), data=batches(), keeps=[0.6], **options)
    with pytest.raises(PlanError, match=said):
        statprune.compress(tiny_model("llama"), data=batches(), keep=0.6, **options)
    with pytest.raises(InputError, match="no share to answer for"):
        statprune.answer(tiny_model("llama"), data=batches(), keeps=[])


@pytest.mark.parametrize("options", [{"samples": 64}, {"seed": 1}, {"seq_len": 8}, {"text_column": "text"}])
def test_answers_refuse_what_the_measurement_has_settled(measured: Path, options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(options))} was settled when"):
        statprune.answer(tiny_model("llama"), measured=measured, keeps=[0.6], **options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"protect": -1}, "protect is -1; give a list of block numbers"),
        ({"protect": "01"}, "protect is '01'; give a list"),
        ({"protect": None}, "protect is None; give a list"),
        ({"floors": 3}, "floors is 3; give units to keep by name"),
        ({"pins": ["blocks.0.attention"]}, "give units to keep by name, as in {'blocks.0.attention': 4}"),
    ],
)
def test_restrictions_of_the_wrong_type_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        statprune.compress(tiny_model("llama"), data=batches(), keep=0.6, **options)


def test_answers_are_those_of_the_measurement(measured: Path) -> None:
    found = measurements.read(measured, anatomy_of(tiny_model("llama")))
    answered = statprune.answer(
        tiny_model("llama"), measured=measured, keeps=(1.0, 0.7, 0.5), floors={"feed_forward": 16}, multiple=4
    )
    assert [each.keep for each in answered.answers] == [1.0, 0.7, 0.5]
    for each in answered.answers:
        assert each.share <= each.keep
        by_hand = sum(found.curves[name].damage()[width] for name, width in each.plan.widths.items())
        dim = each.plan.value_dim
        by_hand += sum(curve.damage()[dim] for curve in found.values.values()) if dim is not None else 0
        assert each.predicted == pytest.approx(by_hand, rel=1e-12)
        units = sum(
            site.parameters_fixed + site.parameters_per_unit * each.plan[site] for site in found.sites
        )
        gone = 0 if dim is None else 8 - dim
        assert each.parameters == units - gone * sum(
            site.parameters_per_column * each.plan[site] for site in found.sites
        )
        assert min(width for name, width in each.plan.widths.items() if "feed" in name) >= 16
    assert answered.answers[0].predicted == 0
    assert answered.damage == found.about["damage"]
    assert answered.latency == dict(found.latency.conditions)


def test_answering_for_latency_times_the_model() -> None:
    answered = statprune.answer(tiny_model("llama"), data=batches()[:2], keeps=(0.9,), of="latency")
    assert answered.latency is not None
    assert answered.latency["batch"] == 8
    assert answered.answers[0].share <= 0.9
    assert statprune.answer(tiny_model("llama"), data=batches()[:2], keeps=(0.9,)).latency is None


def test_an_option_that_answers_cannot_heed_is_refused(measured: Path) -> None:
    with pytest.raises(InputError, match="multipel"):
        statprune.answer(tiny_model("llama"), measured=measured, keeps=[0.6], multipel=4)


def test_a_measurement_that_lacks_a_part_is_refused(measured: Path, tmp_path: Path) -> None:
    folder = altered(measured, tmp_path / "part", lambda content: content.pop("curves"))
    with pytest.raises(PlanError, match="curves"):
        statprune.compress(tiny_model("llama"), measured=folder, keep=0.6)


def test_a_failed_write_leaves_what_was_measured_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError("no room")

    with monkeypatch.context() as patched:
        patched.setattr(measurements, "save_file", fail)
        with pytest.raises(OutputError, match="no room"):
            statprune.plan(tiny_model("llama"), data=batches(), out=tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out.unfinished"]
    statprune.plan(tiny_model("llama"), data=batches(), out=tmp_path / "out", resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_pin_holds_whatever_the_budget(measured: Path) -> None:
    """Also at keep 1; and a site that is not there is refused there too."""
    pins = {"blocks.0.feed_forward": 8}
    made = statprune.compress(tiny_model("llama"), measured=measured, keep=1, pins=pins)
    assert made.plan.widths["blocks.0.feed_forward"] == 8


def test_answers_refuse_other_weights_in_memory(measured: Path) -> None:
    with pytest.raises(PlanError, match="whose weights are others than these"):
        statprune.answer(tiny_model("llama", seed=9), measured=measured, keeps=[0.6])


def test_float16_outputs_above_256_are_fitted_like_others() -> None:
    """Their squares are beyond float16: the trace held NaN, and nothing was made good."""
    model = tiny_model("llama").half()
    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.down_proj.weight.mul_(300)
    made = statprune.compress(model, data=batches(), keep=0.6)
    assert json.dumps(made.record, allow_nan=False)
