"""`--record` keeps results in a compressed model's folder; the command of a record repeats its run."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from statprune import repeat, results
from statprune.checkpoint.record_file import read_record
from tests.cli.conftest import Command
from tests.cli.test_commands import one_object
from tests.gated import saved_world
from tests.saved import save_tiny, sentences


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("recorded")
    save_tiny(root / "dense", "llama")
    save_tiny(root / "other", "llama")
    (root / "text.jsonl").write_text("".join(json.dumps({"words": line}) + "\n" for line in sentences(60)))
    return root


@pytest.fixture
def made(root: Path, tmp_path: Path, command: Command) -> Path:
    out = tmp_path / "made"
    assert command(*words(root, out)).code == 0
    return out


def words(root: Path, out: Path, *more: Any) -> tuple[Any, ...]:
    data = ("--data", root / "text.jsonl", "--text-column", "words")
    sizes = ("--keep", 0.7, "--samples", 8, "--seq-len", 32, "--multiple", 4)
    return ("compress", root / "dense", *data, *sizes, "--out", out, *more)


@pytest.mark.audit
def test_results_of_both_models_are_kept_and_none_is_overwritten(
    command: Command, root: Path, made: Path
) -> None:
    data = ("--data", root / "text.jsonl", "--text-column", "words", "--record", made)
    printed = [one_object(command("evaluate", each, *data, "--json").out) for each in (made, root / "dense")]
    command("evaluate", made, *data)
    command("benchmark", made, "--against", root / "dense", "--repeats", 1, "--seq-len", 8, "--record", made)
    kept = results.read(made)
    assert [(each.kind, each.of) for each in kept] == [
        ("evaluation", "this"),
        ("evaluation", "dense"),
        ("evaluation", "this"),
        ("benchmark", "this"),
    ]
    assert [dict(each.result) for each in kept[:2]] == printed
    assert [each.model for each in kept[:2]] == ["made", "dense"]  # no path of the machine
    names = sorted(path.name for path in (made / "results").iterdir())
    assert names[0] == "001-evaluation-this-text-jsonl.json"
    assert len(names) == 4


@pytest.mark.parametrize("verb", ["evaluate", "benchmark"])
def test_a_result_of_another_model_is_refused_before_it_is_measured(
    command: Command, root: Path, made: Path, verb: str
) -> None:
    data = ("--data", root / "nothing.jsonl") if verb == "evaluate" else ()
    ended = command(verb, root / "other", *data, "--record", made)
    assert ended.code == 2
    assert f"{root / 'other'} is neither" in ended.err
    assert not (made / "results").exists()


def test_a_folder_without_a_record_is_refused(command: Command, root: Path) -> None:
    ended = command("evaluate", root / "dense", "--data", root / "nothing.jsonl", "--record", root / "dense")
    assert ended.code == 2
    assert "holds no statprune.json" in ended.err
    assert not (root / "dense" / "results").exists()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "cannot be read"),
        ("[]", "is of format None"),
        ('{"format": 7}', "is of format 7"),
        ('{"format": 1, "kind": "evaluation"}', "is no result"),
        ('{"format": 1, "kind": "x", "of": "this", "model": "", "when": "", "result": {}}', "is no result"),
    ],
)
def test_a_result_that_cannot_be_read_is_named(tmp_path: Path, content: str, told: str) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "001-mine.json").write_text(content)
    with pytest.raises(results.InputError, match=f"001-mine.json {told}"):
        results.read(tmp_path)


@pytest.mark.parametrize(
    "more",
    [
        (),
        ("--of", "macs", "--seed", 3, "--floor", "feed_forward=8", "--protect", -1),
        ("--pin", "blocks.0.feed_forward=16", "--widths", "uniform"),
        ("--method", "stat", "--backend", "qr", "--widths", "per-layer"),
    ],
)
def test_the_command_of_a_record_repeats_the_run(
    command: Command, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: tuple[Any, ...]
) -> None:
    assert command(*words(root, tmp_path / "first", *more)).code == 0
    record = read_record(tmp_path / "first")
    monkeypatch.chdir(root)  # where the model and the data go by their names alone
    told = shlex.split(repeat.command_of(record, out=str(tmp_path / "again")))
    assert told[:3] == ["statprune", "compress", "dense"]
    assert command(*told[1:]).code == 0
    again = read_record(tmp_path / "again")
    assert again["recipe"] == record["recipe"]
    assert again["fingerprints"] == record["fingerprints"]
    assert again["plan"] == record["plan"]
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("first", "again")]
    assert weights[0] == weights[1]


def test_the_command_of_a_gate_repeats_it(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = saved_world(tmp_path)
    ended = command(
        "compress", files["model"], "--data", files["train.jsonl"], "--text-column", "sentence", "--samples",
        24, "--seq-len", 32, "--multiple", 4, "--max-drop", 5, "--task", "glue/sst2", "--max-trials", 2,
        "--task-data", files["validation.jsonl"], "--max-examples", 50, "--out", tmp_path / "first",
    )  # fmt: skip
    assert ended.code == 0
    record = read_record(tmp_path / "first")
    monkeypatch.chdir(tmp_path)
    told = shlex.split(repeat.command_of(record, out=str(tmp_path / "again")))
    assert command(*told[1:]).code == 0
    both = [record, read_record(tmp_path / "again")]
    scores = [[(trial["keep"], trial["score"]) for trial in each["gate"]["trials"]] for each in both]
    assert scores[0] == scores[1]
    assert len(scores[0]) == 2


def test_a_name_of_several_words_is_quoted(made: Path) -> None:
    record = read_record(made) | {"model": "my model; rm -rf ~"}
    assert shlex.split(repeat.command_of(record))[2] == "my model; rm -rf ~"
