"""`statprune compress --max-drop`: the table and the record agree, and what contradicts it is refused."""

from pathlib import Path
from typing import Any

import pytest

import statprune
from tests.cli.conftest import Command
from tests.cli.test_commands import one_object
from tests.gated import saved_world


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return saved_world(tmp_path_factory.mktemp("gate"))


def arguments(files: dict[str, Path], out: Path, *more: Any) -> tuple[Any, ...]:
    return (
        "compress", files["model"], "--data", files["train.jsonl"], "--text-column", "sentence", "--samples",
        24, "--seq-len", 32, "--multiple", 4, "--task", "glue/sst2", "--task-data", files["validation.jsonl"],
        "--out", out, *more,
    )  # fmt: skip


def test_the_table_and_the_record_agree(command: Command, files: dict[str, Path], tmp_path: Path) -> None:
    ended = command(*arguments(files, tmp_path / "out", "--max-drop", 5))
    assert (ended.code, ended.err) == (0, "")
    record = one_object((tmp_path / "out" / "statprune.json").read_text())
    gate = record["gate"]
    assert "accuracy of glue/sst2 may fall by 5 points from 100.0000 (200 examples" in ended.out
    lines = ended.out.splitlines()
    for trial in gate["trials"]:
        row = next(line.split() for line in lines if line.startswith(f"│ {trial['keep']:g} "))
        assert f"{trial['share']:.4f}" in row
        assert f"{trial['score']:.4f}" in row
        assert f"{trial['drop']:.4f}" in row
        told = "chosen" if trial["keep"] == gate["keep"] else "yes" if trial["passes"] else "no"
        assert told in row
    data = files["validation.jsonl"]
    measured = statprune.evaluate(tmp_path / "out", task="glue/sst2", data=data).score
    assert 100 - measured == pytest.approx(
        next(t["drop"] for t in gate["trials"] if t["keep"] == gate["keep"])
    )


def test_json_holds_the_gate(command: Command, files: dict[str, Path], tmp_path: Path) -> None:
    ended = command(
        *arguments(
            files, tmp_path / "out", "--max-drop", 5, "--max-trials", 2, "--max-examples", 50, "--json"
        )
    )
    printed = one_object(ended.out)
    assert len(printed["gate"]["trials"]) == 2
    assert printed["gate"] == one_object((tmp_path / "out" / "statprune.json").read_text())["gate"]
    assert printed["out"] == str(tmp_path / "out")


def test_where_nothing_passes_the_code_is_2_and_nothing_is_written(
    command: Command, files: dict[str, Path], tmp_path: Path
) -> None:
    more = ("--max-drop", 0, "--method", "stat", "--max-trials", 1)
    ended = command(*arguments(files, tmp_path / "out", *more))
    assert ended.code == 2
    assert "may fall by 0 points, from 100.0000, and falls further" in ended.err
    assert "max_trials 1 left shares untried" in ended.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("--max-drop 1 --keep 0.5", "both --keep and --max-drop are given"),
        ("--max-drop 1 --plan plan.json", "both --plan and --max-drop are given"),
        ("--max-drop 1 --search", "both --search and --max-drop are given"),
        ("--max-drop 1 --dry-run", "both --dry-run and --max-drop are given"),
        (
            "--max-drop 1 --offload",
            "both --offload and --max-drop are given; trials need the model in memory",
        ),
        ("--max-drop 1 --max-memory 6GB", "both --max-memory and --max-drop are given"),
        ("--keep 0.5", "--task is 'glue/sst2', which goes with --max-drop"),
        ("--max-drop -1", "max_drop is -1.0; give a number of points, at least 0"),
        ("--max-drop nan", "max_drop is nan"),
        ("--max-drop 1 --max-trials 0", "--max-trials"),
    ],
)
def test_what_contradicts_a_gate_is_refused(
    more: str, told: str, command: Command, files: dict[str, Path], tmp_path: Path
) -> None:
    ended = command(*arguments(files, tmp_path / "out", *more.split()))
    assert ended.code == 2
    assert told in ended.err
    assert list(tmp_path.iterdir()) == []


def test_a_gate_without_a_task_is_refused(command: Command, files: dict[str, Path], tmp_path: Path) -> None:
    ended = command(
        "compress", files["model"], "--data", files["train.jsonl"], "--max-drop", 1, "--out", tmp_path / "out"
    )
    assert ended.code == 2
    assert "--max-drop is 1, but no --task says of what" in ended.err


def test_without_a_folder_nothing_is_advised_that_a_gate_refuses(
    command: Command, files: dict[str, Path]
) -> None:
    ended = command(
        *("compress", files["model"], "--data", files["train.jsonl"], "--max-drop", 1, "--task", "glue/sst2")
    )
    assert ended.code == 2
    assert "give --out DIR" in ended.err
    assert "--dry-run" not in ended.err


def test_several_processes_are_refused(
    command: Command, files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("statprune.cli.gate.started_many", lambda: 2)
    monkeypatch.delenv("RANK", raising=False)
    ended = command(*arguments(files, tmp_path / "out", "--max-drop", 1))
    assert ended.code == 2
    assert "2 processes were started, and --max-drop runs in one" in ended.err
