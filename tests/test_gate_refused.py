"""What a gate cannot use is refused in one line, before any pass; no other gate's state is gone on with."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

import statprune
from statprune.errors import BudgetError, DataError, InputError, ModelError, OutputError
from tests.gated import OPTIONS, calibration, classifier, labelled_by
from tests.saved import letter_tokenizer
from tests.tiny import tiny_model


def refused(**changed: Any) -> Any:
    model = changed.pop("model", None) or classifier()
    given = {
        "task": "glue/sst2", "task_data": labelled_by(classifier(), 20), "max_drop": 1.0,
        "data": calibration(), "tokenizer": letter_tokenizer("encoder"), **OPTIONS,
    }  # fmt: skip
    return statprune.smallest(model, **{**given, **changed})


@pytest.mark.parametrize(
    ("changed", "kind", "told"),
    [
        ({"task": "glue/sst3"}, InputError, "task 'glue/sst3': no such task; did you mean glue/sst2"),
        ({"max_drop": -0.5}, InputError, r"max_drop is -0\.5; give a number of points, at least 0"),
        ({"max_drop": math.nan}, InputError, "max_drop is nan"),
        ({"max_drop": math.inf}, InputError, "max_drop is inf"),
        ({"max_drop": "1"}, InputError, "max_drop is '1'"),
        ({"max_drop": -1, "task": "wikitext2"}, InputError, "a number of per cent of the dense perplexity"),
        ({"max_trials": 0}, InputError, "max_trials is 0; give a whole number of at least 1"),
        ({"max_examples": 0}, DataError, "max_examples is 0"),
        ({"keep": 0.5}, InputError, "both keep and max_drop are given"),
        ({"plan": {"blocks.0.attention": 1}}, InputError, "both plan and max_drop are given"),
        ({"search": True}, InputError, "both search and max_drop are given"),
        ({"offload": True}, InputError, "there is no option 'offload'"),
        ({"task_data": "nowhere.jsonl"}, DataError, "nowhere.jsonl: no such file"),
        ({"task_data": [{"text": "a"}]}, DataError, "no column 'sentence'"),
        ({"task": "glue/stsb"}, ModelError, "has 2 labels"),
        ({"model": tiny_model("bert")}, ModelError, "BertForMaskedLM has no head that classifies texts"),
        ({"data": None}, InputError, "no data"),
        ({"protect": [0, 1, 2]}, BudgetError, r"leave 1\.0000 of params: there is nothing to try"),
    ],
)
def test_what_cannot_be_used_is_refused_before_any_pass(
    changed: dict[str, Any], kind: type[Exception], told: str
) -> None:
    def progress(*_: Any) -> None:
        pytest.fail("a pass was made")

    with pytest.raises(kind, match=told):
        refused(progress=progress, **changed)


def test_what_is_calibrated_on_is_not_what_is_validated_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = labelled_by(classifier(), 40)
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "rows.jsonl").write_text(path.read_text())
    (tmp_path / "both").mkdir()
    for name in ("train.jsonl", "validation.jsonl"):
        (tmp_path / "both" / name).write_text(path.read_text())
    monkeypatch.chdir(tmp_path)
    for data, task_data in (
        ("other/rows.jsonl", "./other/rows.jsonl"),
        ("other/rows.jsonl", str(tmp_path / "other" / "rows.jsonl")),
        ("other", "other/rows.jsonl"),
        (tmp_path / "both", "both/train.jsonl"),
        (rows, rows),
        (path, path),
        (str(path), tmp_path / "other" / ".." / "rows.jsonl"),
    ):
        with pytest.raises(DataError, match="both calibration and validation data"):
            refused(data=data, task_data=task_data, text_column="sentence")
    found = refused(
        data=path, task_data=tmp_path / "other" / "rows.jsonl", text_column="sentence", max_drop=60
    )
    assert found.gate.notes == ()


def test_a_file_of_the_same_name_as_that_of_the_measurement_is_noted(tmp_path: Path) -> None:
    rows = labelled_by(classifier(), 40)
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tokenizer = letter_tokenizer("encoder")
    given = {"samples": 24, "seq_len": 32, "text_column": "sentence", "latency": False}
    statprune.plan(classifier(), data=path, tokenizer=tokenizer, out=tmp_path / "measured", **given)
    found = statprune.smallest(
        classifier(), measured=tmp_path / "measured", tokenizer=tokenizer, task="glue/sst2", task_data=path,
        max_drop=60,
    )  # fmt: skip
    assert "a file of the same name as the validation data, rows.jsonl" in found.gate.notes[0]


def test_without_resume_being_meant_another_gate_does_not_go_on(tmp_path: Path) -> None:
    rows = labelled_by(classifier(), 40)

    def progress(stage: str, *_: Any) -> None:
        if stage == "survey":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        refused(task_data=rows, out=tmp_path / "out", progress=progress)
    for changed, told in (
        ({"max_drop": 2.0}, r"gate\.max_drop was 1\.0, is 2\.0"),
        ({}, r"gate\.content was"),
    ):
        other = rows if changed else [{**rows[0], "label": 1 - rows[0]["label"]}, *rows[1:]]
        with pytest.raises(OutputError, match=told):
            refused(task_data=other, out=tmp_path / "out", resume=True, **changed)
