"""Names that steer terminals, shells or parsers: they work, and what is printed is printable."""

import json
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.cli.test_commands import one_object

NAMES = (
    "new\nline", "tab\tand\rreturn", "quo'te\"s", "$(touch HACKED)", "`id`", "\u202egnp.exe", "-dash",
    "--json", "n" * 240, "sp ace",
    "em😀ji", "[red]x", "[bold]", "\x1b[31mred", "\x1b]0;title\x07", "\x9b31m", "bad\udc80",
    "%s{x}{0}", "a@b", "a:b", "#", "dot.", "..x", "\u2028sep", "a,b",
)  # fmt: skip


def path_of(name: str) -> str:
    """As one gives it: what begins with a dash would be an option."""
    return f"./{name}" if name.startswith("-") else name


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_model_of_that_name(
    name: str, command: Command, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(world / "llama", tmp_path / name)
    ended = command("inspect", path_of(name))
    assert (ended.code, ended.err) == (0, "")
    assert all(line.isprintable() for line in ended.out.split("\n"))
    assert ended.out.count("\n") == command("inspect", world / "llama").out.count("\n")
    found = command("inspect", path_of(name), "--json")
    assert found.out.isascii()
    assert one_object(found.out)["model"] == path_of(name)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
@pytest.mark.parametrize("options", ["{} --data x", "llama --data {}", "llama --data t.txt --plan {}"])
def test_nothing_of_that_name(
    name: str, options: str, command: Command, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(world / "llama", tmp_path / "llama")
    shutil.copyfile(world / "text.txt", tmp_path / "t.txt")
    wanted = [f"./{name}" if part == "{}" else part for part in options.split()]
    ended = command("compress", *wanted, "--samples", 12, "--dry-run", "--json")
    assert ended.code == 2
    assert ended.err.count("\n") == 1
    assert ended.err[:-1].isprintable()
    assert json.loads(ended.out)["error"]["exit_code"] == 2


def test_out_of_that_name_is_told_as_python_reads_it(command: Command, world: Path, tmp_path: Path) -> None:
    out = tmp_path / 'a"); evil(); ("\x1b[31m'
    made = command(
        "compress",
        world / "llama",
        "--data",
        world / "text.txt",
        "--samples",
        12,
        "--keep",
        0.7,
        "--out",
        out,
    )
    assert made.code == 0
    assert all(line.isprintable() for line in made.out.split("\n"))
    assert '\\"); evil(); (\\"' in made.out.replace("\n", "")


@pytest.mark.parametrize("config", [{"model_type": "\x1b[31mx"}, {"architectures": ["a\nb\u202e"]}])
def test_values_that_steer_a_terminal(
    config: dict[str, object], command: Command, world: Path, tmp_path: Path
) -> None:
    shutil.copytree(world / "llama", tmp_path / "llama")
    path = tmp_path / "llama/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    ended = command("inspect", tmp_path / "llama")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert ended.err[:-1].isprintable()
