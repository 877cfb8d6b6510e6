"""Floors, pins and protected blocks on the command line; the damage that is told in text is that in JSON."""

import json
from pathlib import Path

import pytest
import torch

import statprune
from tests.cli.conftest import Command
from tests.cli.test_commands import listing, one_object
from tests.saved import letter_tokenizer, sentences
from tests.tiny import tiny_model


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Beside the model that it is of."""
    root = tmp_path_factory.mktemp("restricted")
    tiny_model("bert").save_pretrained(root / "bert")
    letter_tokenizer("encoder").save_pretrained(root / "bert")
    statprune.plan(root / "bert", data=sentences(), samples=16, out=root / "measured")
    return root / "measured"


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--floor", "attention:2", "'attention:2' is not NAME=UNITS"),
        ("--floor", "feed_forward=1.5", "'feed_forward=1.5' is not NAME=UNITS"),
        ("--floor", "feed_forward=", "'feed_forward=' is not NAME=UNITS"),
        (
            "--floor",
            "feed_forward=41",
            "feed_forward: cannot keep 41 units; give a whole number from 1 to 40",
        ),
        ("--floor", "feed_forward=0", "feed_forward: cannot keep 0 units"),
        ("--floor", "neurons=3", "'neurons' is no site of this model"),
        ("--pin", "blocks.0.attention", "'blocks.0.attention' is not NAME=UNITS"),
        ("--pin", "blocks.0.attention=-1", "'blocks.0.attention=-1' is not NAME=UNITS"),
        ("--pin", "attention=1", "'attention' is no site of this model"),
        ("--pin", "blocks.2.attention=5", "blocks.2.attention: cannot keep 5 units"),
        ("--protect", "last", "--protect"),
        ("--protect", "3", "protected block 3: this model has blocks 0 to 2"),
        ("--protect", "-4", "protected block -4"),
    ],
)
@pytest.mark.parametrize("what", ["plan", "compress"])
def test_what_cannot_be_heeded_is_refused_in_one_line(
    what: str, option: str, value: str, says: str, command: Command, measured: Path, tmp_path: Path
) -> None:
    before = listing(measured)
    out = ("--out", tmp_path / "out") if what == "compress" else ()
    ended = command(what, "--from", measured, "--keep", 0.6, f"{option}={value}", *out)
    assert (ended.code, ended.out) == (2, "")
    assert says in ended.err
    assert ended.err.count("\n") == 1
    assert (list(tmp_path.iterdir()), listing(measured)) == ([], before)


def test_pins_and_floors_that_contradict_each_other(command: Command, measured: Path) -> None:
    arguments = ("plan", "--from", measured, "--pin", "blocks.0.attention=1")
    floor = command(*arguments, "--floor", "attention=2")
    assert (floor.code, "below its floor 2" in floor.err) == (2, True)
    block = command(*arguments, "--protect", 0)
    assert (block.code, "its block is protected" in block.err) == (2, True)


def test_they_are_heeded_to_the_saved_folder(command: Command, measured: Path, tmp_path: Path) -> None:
    ended = command(
        "compress", "--from", measured, "--keep", 0.8, "--floor", "attention=3", "--pin",
        "blocks.1.feed_forward=13", "--protect", -1, "--multiple", 4, "--out", tmp_path / "out", "--json",
    )  # fmt: skip
    assert (ended.code, ended.err) == (0, "")
    record = one_object(ended.out)
    widths = record["plan"]["widths"]
    assert widths["blocks.1.feed_forward"] == 13
    assert (widths["blocks.2.attention"], widths["blocks.2.feed_forward"]) == (4, 40)
    assert min(widths["blocks.0.attention"], widths["blocks.1.attention"]) >= 3
    assert record["cost"]["params"]["share"] <= 0.8
    recipe = record["recipe"]
    assert recipe["floors"] == {"attention": 3}
    assert (recipe["pins"], recipe["protect"]) == ({"blocks.1.feed_forward": 13}, [-1])
    found = json.loads((tmp_path / "out" / "config.json").read_text())
    assert "13" in json.dumps(found)


def test_damage_is_told_as_it_is_recorded(command: Command, measured: Path, tmp_path: Path) -> None:
    arguments = ("compress", "--from", measured, "--keep", 0.5)
    trace = one_object(command(*arguments, "--out", tmp_path / "one", "--json").out)["trace"]
    told = command(*arguments, "--out", tmp_path / "two").out
    line = next(each for each in told.splitlines() if each.startswith("damage predicted"))
    assert line == (
        f"damage predicted {trace['predicted']:.4f}; measured afterwards {trace['divergence']:.4f} "
        f"({trace['damage']})"
    )
    assert min(trace["predicted"], trace["divergence"]) > 0
    dry = command(*arguments, "--dry-run").out
    assert f"damage predicted {trace['predicted']:.4f} (" in dry
    answers = one_object(command("plan", "--from", measured, "--keep", 0.5, "--json").out)
    assert answers["answers"][0]["predicted"] == trace["predicted"]
    table = command("plan", "--from", measured, "--keep", 0.5).out
    assert f"{trace['predicted']:.4f}" in table
    assert answers["damage"] in " ".join(table.split())


def test_plan_answers_the_usual_shares_and_writes_nothing_unasked(
    command: Command, measured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    (tmp_path / "text.txt").write_text("\n".join(sentences()))
    ended = command(
        "plan", measured.parent / "bert", "--data", "text.txt", "--samples", 16, "--json", "--of", "macs"
    )
    assert (ended.code, ended.err) == (0, "")
    found = one_object(ended.out)
    assert [each["keep"] for each in found["answers"]] == [0.9, 0.8, 0.7, 0.6, 0.5]
    damages = [each["predicted"] for each in found["answers"]]
    assert damages == sorted(damages)
    assert (found["of"], found["latency"]) == ("macs", None)
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]


def test_three_samples_are_too_few(command: Command, measured: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("\n".join(sentences(3)))
    model = measured.parent / "bert"
    for what in (("compress", "--keep", 0.6, "--out", tmp_path / "out"), ("plan", "--out", tmp_path / "out")):
        ended = command(what[0], model, "--data", tmp_path / "text.txt", *what[1:])
        assert ended.code == 2
        assert ended.err.startswith("error: 3 calibration samples: method refit holds every fourth one out.")
    stat = ("--method", "stat", "--keep", 0.6, "--dry-run")
    assert command("compress", model, "--data", tmp_path / "text.txt", *stat).code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]
