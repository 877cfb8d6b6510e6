"""`statprune export --to gguf`: text and JSON, exit codes, what is left behind."""

import json
from pathlib import Path

import pytest

import statprune.export.gguf as target
from tests.cli.conftest import Command


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target, "runtime_version", lambda: None)


def test_a_file_is_written_and_told(command: Command, world: Path, tmp_path: Path) -> None:
    out = tmp_path / "tiny.gguf"
    ended = command(
        "export", world / "llama", "--to", "gguf", "--out", out, "--no-tokenizer", "--dtype", "f16"
    )
    assert (ended.code, ended.err) == (0, "")
    for told in (str(out), "architecture llama, f16, no tokenizer", "bit for bit", "statprune[llama-cpp]"):
        assert told in ended.out
    assert out.read_bytes()[:4] == b"GGUF"
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.gguf"]


def test_by_default_it_gets_the_folders_name_here(
    command: Command, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = command("export", world / "llama", "--to", "gguf", "--no-tokenizer", "--json")
    assert (ended.code, ended.err) == (0, "")
    written = json.loads(ended.out)
    assert (written["path"], written["neurons"], written["difference"]) == ("llama.gguf", [40] * 3, None)
    assert (tmp_path / "llama.gguf").stat().st_size == written["bytes"]


@pytest.mark.parametrize(
    ("model", "options", "told"),
    [
        ("llama", ("--to", "tarball"), "'tarball' is none of"),
        ("llama", ("--to", "gguf"), "its algorithm is WordLevel"),
        ("llama", ("--to", "gguf", "--no-tokenizer", "--dtype", "int3"), "dtype is 'int3'"),
        (
            "llama",
            ("--to", "onnx", "--dtype", "f16"),
            "--dtype: it is for --to gguf, and does nothing for onnx",
        ),
        ("llama", ("--to", "onnx", "--no-tokenizer"), "--no-tokenizer: it is for --to gguf"),
        ("llama", ("--to", "gguf", "--no-cache"), "--no-cache: it is for --to onnx"),
        ("bert", ("--to", "gguf"), "'bert' cannot be written as GGUF"),
        ("nan", ("--to", "gguf", "--no-tokenizer"), "1 NaN and 0 infinite"),
        ("nowhere", ("--to", "gguf"), "nowhere does not exist"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    model: str, options: tuple[str, ...], told: str, command: Command, world: Path, tmp_path: Path
) -> None:
    ended = command("export", world / model, "--out", tmp_path / "out.gguf", *options)
    assert ended.code == 2
    assert told in ended.err
    assert ended.out == ""
    assert len(ended.err.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
