"""Every number out of its range, and every path to a thing of another kind, is refused before any pass."""

import shlex
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.cli.hostile import state
from tests.cli.test_bad_input import no_pass

__all__ = ["no_pass"]

DATA = "llama --data text.txt"
COMPRESS = f"compress {DATA} --out out"
KEEP = f"{COMPRESS} --keep 0.5"
GATE = f"{COMPRESS} --task glue/sst2 --task-data text.txt"
EVALUATE = f"evaluate {DATA}"
PLAN = f"plan {DATA} --out measured"
HARNESS = "evaluate llama --harness hellaswag"
BENCHMARK = "benchmark llama"
HUGE = "1" + "0" * 30

OUT_OF_RANGE = {
    f"{KEEP} --samples": ("-1", "0", "nan", "1.5", "''"),
    f"{KEEP} --seq-len": ("-1", "0", HUGE, "nan", "1.5"),
    f"{KEEP} --multiple": ("-1", "0", "nan", "1.5"),
    f"{KEEP} --seed": ("-1", HUGE, "nan", "1.5", "9223372036854775808"),
    f"{KEEP} --protect": ("99", "-99", HUGE, "nan", "1.5"),
    f"{KEEP} --timeout": ("-1", "0", "nan", "''"),
    f"{KEEP} --floor": (
        "=3", "attention", "evil=3", "attention=-1", "attention=0", f"attention={HUGE}", "attention=nan",
    ),
    f"{KEEP} --pin": (
        "blocks.9.attention=1", "blocks.0.attention=0", f"blocks.0.attention={HUGE}", "blocks.0.attention=",
    ),
    f"{KEEP} --offload --max-memory": ("-1", "0", "nan", "1e3", "0GB", "1PB", "''", "1KB"),
    f"{KEEP} --device": ("cuda:-1", "cuda:999999999999", "''", "xpu"),
    f"{GATE} --max-drop": ("-1", "nan", "inf", "''"),
    f"{GATE} --max-drop 1 --max-trials": ("-1", "0", "nan"),
    f"{GATE} --max-drop 1 --max-examples": ("-1", "0", "nan"),
    f"{EVALUATE} --seq-len": ("-1", "0", HUGE, "nan"),
    f"{EVALUATE} --max-tokens": ("-1", "0", "nan"),
    f"{EVALUATE} --max-examples": ("-1", "0", "nan"),
    f"{EVALUATE} --seed": ("-1", HUGE, "nan"),
    f"{HARNESS} --num-fewshot": ("-1", "nan"),
    f"{HARNESS} --limit": ("-1", "0", "nan"),
    f"{HARNESS} --batch-size": ("-1", "0", "nan"),
    f"{BENCHMARK} --batch": ("-1", "0", HUGE, "nan"),
    f"{BENCHMARK} --seq-len": ("-1", "0", HUGE, "nan"),
    f"{BENCHMARK} --decode-tokens": ("-1", HUGE, "nan"),
    f"{BENCHMARK} --repeats": ("-1", "0", HUGE, "nan"),
    f"{PLAN} --keep": ("-1", "0", "2", "nan"),
    f"{PLAN} --samples": ("-1", "0"),
    f"{PLAN} --seq-len": ("-1", "0", HUGE),
}  # fmt: skip
OF_ANOTHER_KIND = {
    f"{COMPRESS} --keep 0.5 --entry": ("folder", "nowhere", "/dev/null"),
    f"{COMPRESS} --plan": ("folder", "nowhere", "/dev/null", "/dev/zero", "text.txt"),
    f"{KEEP} --log-file": ("folder", "nowhere/x", "text.txt/x"),
    "compress --keep 0.5 --out out --from": ("folder", "nowhere", "text.txt", "llama", "/dev/null"),
    "inspect": (
        "''", ".", "/", "folder", "text.txt", "/dev/null", "llama/config.json", "x" * 300, "~nobodyhere/x",
    ),
    "evaluate llama --data": (
        "''", "folder", "/dev/null", "~nobodyhere/x", "llama/config.json", "nowhere/", "x" * 300,
    ),
    f"{EVALUATE} --record": ("text.txt", "nowhere", "folder", "llama"),
    f"{EVALUATE} --harness-tasks-dir": ("text.txt", "nowhere"),
    f"{HARNESS} --harness-tasks-dir": ("text.txt", "nowhere"),
    f"compress {DATA} --keep 0.5 --out": (
        "''", ".", "..", "/", "folder/", "folder/.", "llama", "llama/", "llama/out", "text.txt/",
        "text.txt/x", "nowhere/x", "out/..", "/proc/x", "/dev/null", "/dev/full", "dangling", "y" * 256,
        "z" * 250,
    ),
    f"plan {DATA} --out": (
        "''", ".", "..", "/", "folder/", "llama", "llama/out", "text.txt/x", "out/..", "/dev/full",
        "dangling",
    ),
    "export llama --to gguf --out": ("folder", "text.txt", "nowhere/x", "''", "dangling"),
    "export llama --to onnx --out": ("folder", "text.txt", "nowhere/x", "''", "dangling"),
    "demo --out": ("text.txt", "text.txt/x", "dangling", "/proc/x"),
}  # fmt: skip
ROWS = [
    f"{given} {value}"
    for rows in (OUT_OF_RANGE, OF_ANOTHER_KIND)
    for given, values in rows.items()
    for value in values
]


@pytest.fixture(scope="module")
def place(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good model and data, and things of other kinds."""
    root = tmp_path_factory.mktemp("flags")
    shutil.copytree(world / "llama", root / "llama")
    shutil.copyfile(world / "text.txt", root / "text.txt")
    (root / "folder").mkdir()
    (root / "dangling").symlink_to("/nowhere/at/all")
    return root


@pytest.mark.usefixtures("no_pass")
@pytest.mark.parametrize("row", ROWS)
def test_a_bad_option_is_refused(
    row: str, command: Command, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    before = state(place)
    ended = command(*shlex.split(row))
    assert (ended.code, ended.out) == (2, ""), ended.err
    assert ended.err.startswith("error: ")
    assert ended.err.count("\n") == 1, f"more than one line:\n{ended.err}"
    assert any(each in ended.err for each in named_by(shlex.split(row))), ended.err
    assert state(place) == before


def named_by(arguments: list[str]) -> list[str]:
    """What a message may say of the last argument: the value, a part of it, or the option."""
    *_, option, value = arguments
    path = Path(value)
    words = {value, *value.split("="), path.name, str(path.parent), option, option[2:].replace("-", "_")}
    numbers = {"1e+30", "max_memory", "harness"}  # how the program writes them
    here = {": . ", "'' "} if value in ("", ".", "=3") else set()  # no folder is the one where one is
    return [each for each in words | numbers | here if each not in ("", ".")]
