"""`statprune evaluate --harness`: table and JSON, refusals, and what is said without the library."""

import json
from pathlib import Path

import pytest

from statprune.cli.harness import COLUMNS
from statprune.demo import MODEL
from statprune.evaluation import harness_tasks
from tests.cli.conftest import Command
from tests.evaluation.harness_files import write_tasks
from tests.saved import sentences

NEEDED = "Install it with `pip install 'statprune[harness]'`"


def test_without_the_library_the_extra_is_named(
    command: Command, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness_tasks, "find_spec", lambda name: None)
    ended = command("evaluate", world / "nowhere", "--harness", "hellaswag")
    assert (ended.code, ended.out) == (2, "")
    assert NEEDED in ended.err
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "neither --data nor --task is given"),
        (("--data", "x.txt", "--limit", 3), "without --harness it has no meaning"),
        (("--harness", "arc_easy", "--data", "x.txt"), "harness tasks bring their own data"),
        (("--harness", "arc_easy", "--seq-len", 8), "harness tasks bring their own data"),
        (("--harness", "arc_easy", "--num-fewshot", -1), "--num-fewshot"),
    ],
)
def test_options_that_do_not_go_together(
    arguments: tuple[object, ...], says: str, command: Command, world: Path
) -> None:
    ended = command("evaluate", world / "llama", *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert says in ended.err


def test_scores_as_a_table_and_as_json(
    command: Command, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lm_eval")
    monkeypatch.setenv("COLUMNS", "200")
    write_tasks(tmp_path, [f"{a} {b} {c}" for a, b, c in zip(*[iter(sentences(24))] * 3, strict=True)])
    given = ("evaluate", MODEL, "--harness", "own_hellaswag,own_wikitext", "--harness-tasks-dir", tmp_path)
    found = command(*given, "--json", "--progress", "json", "--batch-size", 2)
    assert found.code == 0, found.err
    content = json.loads(found.out)
    scores = {(score["task"], score["metric"]): score for score in content["scores"]}
    assert set(scores) == {
        ("own_hellaswag", "acc"),
        ("own_hellaswag", "acc_norm"),
        ("own_wikitext", "word_perplexity"),
        ("own_wikitext", "byte_perplexity"),
    }
    assert content["protocol"]["batch_size"] == 2
    lines = [json.loads(line) for line in found.err.splitlines()]
    assert (lines[-1]["stage"], lines[-1]["block"], lines[-1]["blocks"]) == ("evaluate", 40, 40)

    shown = command(*given, "--quiet")
    assert (shown.code, shown.err) == (0, "")
    assert all(column in shown.out for column in (*COLUMNS, "truncated: 0", "harness: lm-eval"))
    value = scores["own_wikitext", "byte_perplexity"]["value"]
    assert f"{value:.2f}" in shown.out

    refused = command(
        "evaluate", world / "bert", "--harness", "own_hellaswag", "--harness-tasks-dir", tmp_path
    )
    assert (refused.code, refused.out) == (2, "")
    assert "BertForMaskedLM does not write text" in refused.err
    unknown = command("evaluate", world / "llama", "--harness", "helaswag", "--json")
    assert unknown.code == 2
    assert "the nearest are hellaswag" in json.loads(unknown.out)["error"]["message"]
