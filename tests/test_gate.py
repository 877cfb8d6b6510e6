"""The smallest model within a drop: it is when it is opened and asked anew; the next smaller one is not."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import statprune
from statprune import trials
from statprune.checkpoint.unfinished import folder_for
from statprune.engine.progress import NOTHING, Facts
from statprune.errors import BudgetError, OutputError
from statprune.evaluation import scoring
from tests.gated import OPTIONS, calibration, classifier, labelled_by, smallest
from tests.saved import letter_tokenizer, sentences
from tests.test_resume import content
from tests.tiny import tiny_model

DROP = 5.0


def plain(gate: Any) -> dict[str, Any]:
    """What does not depend on the clock."""
    told: dict[str, Any] = gate.to_json() if not isinstance(gate, dict) else gate
    return {**told, "trials": [{**each, "seconds": 0} for each in told["trials"]]}


@pytest.mark.parametrize("method", ["refit", "stat"])
def test_what_was_found_is_within_the_drop_and_the_next_smaller_is_not(method: str, tmp_path: Path) -> None:
    model = classifier()
    rows = labelled_by(model)
    found = smallest(model, rows, DROP, method=method, out=tmp_path / "out")
    gate, tokenizer = found.gate, letter_tokenizer("encoder")
    loaded = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert scoring.score(loaded, tokenizer, "glue/sst2", rows).score == gate.chosen.score
    assert gate.dense == 100
    assert 100 - gate.chosen.score == gate.chosen.drop <= DROP
    smaller = [trial for trial in gate.trials if trial.keep < gate.keep]
    assert not any(trial.passes for trial in smaller)
    below = max(smaller, key=lambda trial: trial.keep)
    assert not gate.untried
    other = classifier()
    labelled_by(other)
    given = {"data": calibration(), "tokenizer": tokenizer, "method": method, **OPTIONS}
    statprune.compress(other, keep=below.keep, **given)
    assert scoring.score(other, tokenizer, "glue/sst2", rows).score == below.score < 100 - DROP
    shares = [trial.share <= trial.keep for trial in gate.trials]
    assert all(shares)
    assert 2 <= len(gate.trials) <= 8
    record = json.loads((tmp_path / "out" / "statprune.json").read_text())
    assert (
        record["gate"]
        == json.loads(json.dumps(gate.to_json()))
        == json.loads(json.dumps(found.record["gate"]))
    )
    assert record["recipe"]["keep"] == gate.keep
    assert record["cost"]["params"]["share"] == pytest.approx(gate.chosen.share)


def test_the_weights_are_those_of_compress_with_that_share_and_every_time_the_same(tmp_path: Path) -> None:
    first, second, third = (classifier() for _ in range(3))
    rows = labelled_by(first)
    assert rows == labelled_by(second) == labelled_by(third)
    found = [
        smallest(model, rows, DROP, out=tmp_path / name) for model, name in ((first, "one"), (second, "two"))
    ]
    assert plain(found[0].gate) == plain(found[1].gate)
    tokenizer = letter_tokenizer("encoder")
    statprune.compress(
        third, keep=found[0].gate.keep, data=calibration(), tokenizer=tokenizer, out=tmp_path / "direct",
        **OPTIONS,
    )  # fmt: skip
    one, two, direct = (content(tmp_path / name) for name in ("one", "two", "direct"))
    for other in (two, direct):
        assert set(one) == set(other)
        told = ("statprune.json",) if other is two else ("statprune.json", "README.md")  # the search, too
        assert all(one[name] == other[name] for name in one if name not in told)
    assert b"The share kept was searched so that accuracy of" in one["README.md"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["direct", "one", "two"]


def test_a_measurement_is_enough_and_shares_may_be_of_macs(tmp_path: Path) -> None:
    model = classifier()
    rows = labelled_by(model)
    tokenizer = letter_tokenizer("encoder")
    sizes = {"samples": 24, "seq_len": 32}
    statprune.plan(
        model, data=calibration(), tokenizer=tokenizer, out=tmp_path / "measured", latency=False, **sizes
    )
    found = statprune.smallest(
        model, measured=tmp_path / "measured", tokenizer=tokenizer, task="glue/sst2", task_data=rows,
        max_drop=DROP, of="macs", multiple=4,
    )  # fmt: skip
    assert found.gate.of == "macs"
    assert found.model is model
    assert found.folder is None
    assert scoring.score(model, tokenizer, "glue/sst2", rows).score == found.gate.chosen.score
    assert found.record["cost"]["macs"]["share"] == pytest.approx(found.gate.chosen.share)


def test_a_perplexity_may_rise_by_per_cent() -> None:
    model = tiny_model("llama", intermediate_size=64)
    tokenizer, texts = letter_tokenizer(), sentences(80, seed=3)
    given = {"data": calibration(), "tokenizer": tokenizer, **OPTIONS}
    found = statprune.smallest(model, task="wikitext2", task_data=texts, max_drop=10.0, **given)
    now = scoring.score(model, tokenizer, "wikitext2", texts, seq_len=64).score
    gate = found.gate
    assert gate.unit == "per cent of the dense perplexity"
    assert now == gate.chosen.score
    assert gate.chosen.drop == pytest.approx(100 * (now / gate.dense - 1))
    assert gate.chosen.drop <= 10
    assert all(trial.passes == (trial.drop <= 10) for trial in gate.trials)


def test_where_no_share_passes_the_model_is_put_back_and_nothing_is_written(tmp_path: Path) -> None:
    model = classifier()
    rows = labelled_by(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    kind = type(model)
    told = (
        r"may fall by 0 points, from 100\.0000, .* tried: 0\.\d+ \(.*drop .* max_trials 1 left .* larger drop"
    )
    with pytest.raises(BudgetError, match=told):
        smallest(model, rows, 0.0, method="stat", widths="uniform", max_trials=1, out=tmp_path / "out")
    assert type(model) is kind
    assert {name: value.shape for name, value in model.state_dict().items()} == {
        name: value.shape for name, value in before.items()
    }
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert list(tmp_path.iterdir()) == []


def test_where_the_folder_cannot_be_written_the_model_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = classifier()
    rows = labelled_by(model, 40)
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def full(*_: Any, **__: Any) -> None:
        assert any(value.shape != before[name].shape for name, value in model.state_dict().items())
        raise OSError("no space left on device")

    monkeypatch.setattr("statprune.pipeline.save", full)
    with pytest.raises(OSError, match="no space left"):
        smallest(model, rows, 60.0, out=tmp_path / "out")
    after = model.state_dict()
    assert {name: value.shape for name, value in after.items()} == {
        name: value.shape for name, value in before.items()
    }
    assert all(torch.equal(value, before[name]) for name, value in after.items())


def test_trials_and_questions_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    own = scoring.Prepared.score

    def score(self: Any, model: Any, **rest: Any) -> Any:
        asked.append(self.questions.examples)
        return own(self, model, **rest)

    monkeypatch.setattr(scoring.Prepared, "score", score)
    model = classifier()
    rows = labelled_by(model)
    found = smallest(model, rows, DROP, max_trials=2, max_examples=60)
    assert asked == [60] * 3
    assert len(found.gate.trials) == 2
    assert found.gate.examples == 60
    smaller = [trial.keep for trial in found.gate.trials if trial.keep < found.gate.keep]
    lowest = max(smaller, default=0.0)
    assert all(lowest < keep < found.gate.keep for keep in found.gate.untried)


def test_a_run_that_is_stopped_anywhere_ends_in_the_same_folder(tmp_path: Path) -> None:
    rows = labelled_by(classifier())

    def run(out: Path, stop: int | None = None, resume: bool = False) -> int:
        calls = 0

        def progress(stage: str, done: int, blocks: int, facts: Facts = NOTHING, /) -> None:
            nonlocal calls
            calls += 1
            if calls == stop:
                raise KeyboardInterrupt

        model = classifier()
        labelled_by(model)
        smallest(model, rows, DROP, out=out, progress=progress, resume=resume)
        return calls

    whole = run(tmp_path / "whole")
    for stop in (4, 8, 12, 14):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "out", stop, resume=True)
        assert folder_for(tmp_path / "out").is_dir()
        assert not (tmp_path / "out").exists()
    with pytest.raises(OutputError, match="--resume"):
        run(tmp_path / "out")
    assert run(tmp_path / "out", resume=True) < whole
    ends = [json.loads((tmp_path / name / "statprune.json").read_text()) for name in ("out", "whole")]
    assert plain(ends[0]["gate"]) == plain(ends[1]["gate"])
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("out", "whole")]
    assert weights[0] == weights[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]


def test_a_best_trial_made_before_is_made_again_and_what_was_finished_is_recognised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(name: str, **more: Any) -> statprune.Gated:
        model = classifier()
        return smallest(model, labelled_by(model), DROP, out=tmp_path / name, **more)

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    def at_the_end(stage: str, *_: Any) -> None:
        if stage == "save":
            raise KeyboardInterrupt

    whole = run("whole")
    with monkeypatch.context() as patched:
        patched.setattr("statprune.gate.record_of", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run("out")
    made: list[float] = []
    own = trials.narrow
    monkeypatch.setattr(
        trials,
        "narrow",
        lambda prepared, recipe, *rest, **named: (
            made.append(recipe.keep),
            own(prepared, recipe, *rest, **named),
        )[1],
    )
    with pytest.raises(KeyboardInterrupt):
        run("out", resume=True, progress=at_the_end)
    assert made == [whole.gate.keep]
    found = run("out", resume=True)
    assert found.before
    assert made == [whole.gate.keep]
    assert plain(found.gate) == plain(whole.gate)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("out", "whole")]
    assert weights[0] == weights[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]


def test_progress_names_trials_and_time_is_left_until_the_end(tmp_path: Path) -> None:
    reports: list[statprune.Report] = []
    model = classifier()
    rows = labelled_by(model)
    found = smallest(model, rows, DROP, out=tmp_path / "out", progress=statprune.Reporter(reports.append))
    names = [trial for trial in dict.fromkeys(report.trial for report in reports) if trial is not None]
    assert len(names) == len(found.gate.trials)
    for number, (name, trial) in enumerate(zip(names, found.gate.trials, strict=True), start=1):
        assert name.startswith(f"trial {number}, keep {trial.keep:g}")
    assert all(report.left is not None and report.left > 0 for report in reports[:-1])
    assert (reports[-1].stage, reports[-1].left) == ("save", 0)
    assert {report.blocks for report in reports if report.stage == "evaluate"} == {len(rows)}
