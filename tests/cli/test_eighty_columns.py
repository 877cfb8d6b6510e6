"""Every table of every command fits 80 columns, however many blocks the model has; no colours in a pipe."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

import statprune
from statprune.cli.progress import Bars
from statprune.cli.show import span
from statprune.cli.summary import show_result
from statprune.engine.trace import SiteTrace, Trace
from tests.card.records import record
from tests.cli.conftest import Command
from tests.cli.test_commands import COMPRESS
from tests.saved import save_tiny, sentences

EDGES = set("│┃┏┓┗┛┡┩└┘━─┌┐╇┳┻┴├┤")


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def tables(printed: str) -> list[str]:
    return [line for line in printed.splitlines() if EDGES & set(line)]


def fits(printed: str) -> list[str]:
    lines = tables(printed)
    assert lines
    assert max(map(len, lines)) <= 80
    assert "…" not in "".join(lines), "a cell was cut"
    assert "\x1b" not in printed
    return lines


def result_of(blocks: int, *, saved: bool = True) -> Any:
    """Of a large model: the longest names and numbers that occur."""
    large = {"dense": 70_553_706_496, "kept": 49_387_594_547, "share": 0.7}
    content = record(blocks, cost={"params": large, "macs": large}, parameters=large, bytes=large)
    trace = Trace(predicted=0.25, divergence=0.5, damage="KL(dense || thin) of the outputs")
    for stage in ("prepare", "survey", "latency", "search", "refit"):
        trace.seconds[stage], trace.memory[stage] = 123456.7, 98_765_432_100
    for name, units in content["units"].items():
        trace.sites.append(SiteTrace(name, units, [0], 0.9876, 1.0, 1))
    folder = SimpleNamespace(
        path=Path("a folder/small"),
        agreement=None,
        stock=False,
        reason="blocks differ.",
        how_to_load="import",
    )
    plan = SimpleNamespace(**content["plan"])
    return SimpleNamespace(
        record=content, trace=trace, plan=plan, before=False, folder=folder if saved else None
    )


@pytest.mark.parametrize("blocks", [12, 32, 80])
def test_the_summary_is_short_and_narrow(blocks: int, capsys: pytest.CaptureFixture[str]) -> None:
    show_result(result_of(blocks), 12.5)
    printed = capsys.readouterr().out
    assert len(fits(printed)) <= 30
    told = printed.replace("\n", " ")
    for word in (
        "attention", "1 to 4", f"8 to {8 + blocks - 1}", "98.8%", "49,387,594,547", "49.4 GB",
        "damage predicted 0.2500; measured afterwards 0.5000", "12.5 s in all", "98.8 GB", "123456.7",
        "saved and verified: a folder/small", "load: import",
        "statprune evaluate 'a folder/small' --data TEXT --record 'a folder/small'",
        "statprune report 'a folder/small'",
    ):  # fmt: skip
        assert word in told


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 32 blocks, and texts."""
    root = tmp_path_factory.mktemp("deep")
    save_tiny(root / "deep", "llama", num_hidden_layers=32)
    (root / "text.txt").write_text("\n\n".join(sentences(60)))
    return root


def test_plan_and_compress_of_a_deep_model(command: Command, deep: Path, tmp_path: Path) -> None:
    data = ("--data", deep / "text.txt", "--samples", 8, "--seq-len", 16, "--multiple", 4)
    planned = command("plan", deep / "deep", *data, "--out", tmp_path / "measured")
    assert planned.code == 0, planned.err
    assert len(fits(planned.out)) <= 12
    made = command(
        "compress",
        "--from",
        tmp_path / "measured",
        "--keep",
        0.6,
        "--multiple",
        4,
        "--out",
        tmp_path / "made",
    )
    assert made.code == 0, made.err
    assert len(fits(made.out)) <= 30
    dry = command("compress", "--from", tmp_path / "measured", "--keep", 0.6, "--dry-run")
    assert "blocks.31.feed_forward" in "".join(fits(dry.out))


@pytest.mark.parametrize(
    "words",
    [
        ("inspect",),
        ("inspect", "llama"),
        ("benchmark", "llama", "--against", "llama", "--repeats", 1, "--seq-len", 8, "--decode-tokens", 2),
        ("plan", "bert", "--data", "text.jsonl", *COMPRESS),
        ("compress", "bert", "--data", "text.jsonl", "--keep", 0.6, "--dry-run", *COMPRESS),
    ],
)
def test_other_tables(command: Command, world: Path, words: tuple[Any, ...]) -> None:
    given = [world / word if (world / str(word)).exists() else word for word in words]
    ended = command(*given)
    assert ended.code == 0, ended.err
    fits(ended.out)


def test_evaluate_says_its_seconds(command: Command, world: Path) -> None:
    ended = command("evaluate", world / "llama", "--data", world / "text.txt", "--seq-len", 32)
    assert ended.out.splitlines()[-1].startswith("time: ")


def test_no_colour_where_it_is_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    console = Console(force_terminal=True, width=80)
    bars = Bars(statprune.Reporter(), console)
    with console.capture() as captured:
        bars._reporter("survey", 1, 2)
        bars.take(SimpleNamespace(trial=None, site=None, error=None))  # type: ignore[arg-type]
        bars.stop()
        console.print(bars.get_renderable())
    codes = [part.split("m")[0] for part in captured.get().split("\x1b[")[1:]]
    colours = [
        code for code in codes if code[:2] in ("31", "32", "33", "34", "35", "36", "38", "48", "91", "92")
    ]
    assert colours == []


def test_numbers_in_words() -> None:
    assert (span([3, 1, 2]), span([2, 2]), span([0.5, 0.25], lambda x: f"{x:.0%}")) == (
        "1 to 3",
        "2",
        "25% to 50%",
    )
