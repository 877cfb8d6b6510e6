"""The table in the docs and that of the command are those of the entries; and the command asks them."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import statprune
from statprune.cli.main import run
from statprune.errors import InputError
from statprune.evaluation.tasks import TASKS, Task, as_markdown, task_named
from tests.evaluation.task_files import labelled
from tests.saved import letter_tokenizer, save_tiny, sentences
from tests.tiny import tiny_model

DOCUMENT = Path(__file__).parents[2] / "docs" / "evaluation.md"
BEGIN, END = "<!-- table -->\n", "<!-- end -->"


def test_the_table_in_the_docs_is_that_of_the_entries() -> None:
    """To renew it, run this file as a module."""
    found = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    assert found == as_markdown()


def test_entries_are_whole() -> None:
    names = [task.name for task in TASKS]
    assert len(set(names)) == len(names)
    glue = {name.removeprefix("glue/") for name in names if name.startswith("glue/")}
    small = {"qqp", "qnli", "sst2", "stsb", "mrpc", "cola", "rte", "wnli"}
    assert glue == {"mnli-matched", "mnli-mismatched"} | small
    assert set(names) - {f"glue/{name}" for name in glue} == {
        "squad",
        "squad_v2",
        "wikitext2",
        "ptb",
        "c4",
        "lambada",
    }
    for task in TASKS:
        assert task.hub.count("@") == 1
        assert len(task.columns) in (1, 2)
        assert (task.kind == "classes") == bool(task.label_names)
        assert task.source
    assert task_named("glue/mnli-mismatched").hub == "nyu-mll/glue:mnli@validation_mismatched"


def ended(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        run([str(argument) for argument in arguments])
    shown = capsys.readouterr()
    assert isinstance(left.value.code, int)
    return left.value.code, shown.out, shown.err


def test_the_command_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = ended(capsys, "evaluate", "--list-tasks", "--json")
    assert code == 0
    assert [task["name"] for task in json.loads(out)["tasks"]] == [task.name for task in TASKS]
    code, out, err = ended(capsys, "evaluate", "--list-tasks")
    assert code == 0
    assert all(task.name in out + err for task in TASKS)


def test_the_command_asks_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_tiny(tmp_path / "model", "bert", head="BertForSequenceClassification", num_labels=2)
    rows = labelled(task_named("glue/sst2"))
    data = tmp_path / "validation.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = ("evaluate", tmp_path / "model", "--task", "glue/sst2", "--data", data, "--max-examples", 9)
    code, out, _ = ended(capsys, *given)
    assert code == 0
    assert out.startswith("glue/sst2: accuracy ")
    for told in ("9 examples, 0 truncated, 0 skipped", "labels matched: by number", "dtype: float32"):
        assert told in out
    code, out, _ = ended(capsys, *given, "--json")
    found = statprune.evaluate(tmp_path / "model", task="glue/sst2", data=str(data), max_examples=9)
    assert json.loads(out) | {"seconds": 0} == found.to_json() | {"seconds": 0}


def test_the_command_prints_the_protocol_of_a_perplexity(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_tiny(tmp_path / "model", "llama")
    (tmp_path / "ptb.txt").write_text("\n".join(sentences()))
    code, out, _ = ended(
        capsys, "evaluate", tmp_path / "model", "--task", "ptb", "--data", tmp_path / "ptb.txt"
    )
    assert code == 0
    for name in ("data", "split", "join", "window", "stride", "tokens", "beginning_of_text", "dtype"):
        assert f"\n  {name}: " in out


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (("model",), "neither --data nor --task is given"),
        ((), "no model is given"),
        (
            ("model", "--task", "glue/sst3"),
            "task 'glue/sst3': no such task; did you mean glue/sst2? Known are",
        ),
    ],
)
def test_what_the_command_refuses(
    given: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = ended(capsys, "evaluate", *given)
    assert code == 2
    assert says in err


def test_an_entry_and_columns_of_your_own() -> None:
    rows = [{"one": text, "label": number % 2} for number, text in enumerate(sentences(8))]
    model: Any = tiny_model("bert", head="BertForSequenceClassification", num_labels=2)
    own = Task("mine", "classes", "nowhere@test", ("one",), ("accuracy",), ("no", "yes"))
    tokenizer = letter_tokenizer("encoder")
    found = statprune.evaluate(model, task=own, data=rows, tokenizer=tokenizer)
    named = statprune.evaluate(model, task="glue/sst2", data=rows, tokenizer=tokenizer, text_column="one")
    with pytest.raises(
        InputError, match=r"task 'mine': metrics bleu; of kind 'classes' take some of accuracy"
    ):
        statprune.evaluate(model, task=replace(own, metrics=("bleu",)), data=rows, tokenizer=tokenizer)
    assert found.task == "mine"
    assert found.score == named.score


if __name__ == "__main__":
    before, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)
    DOCUMENT.write_text(before + BEGIN + as_markdown() + END + rest.partition(END)[2], encoding="utf-8")
    sys.exit(0)
