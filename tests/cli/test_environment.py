"""Permissions, full disks, narrow terminals and odd environments: one line, or it works all the same."""

import ctypes
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from statprune.cli.main import run
from tests.cli.conftest import Command
from tests.cli.hostile import state

DAC_OVERRIDE, DAC_READ_SEARCH = 1, 2
_VERSION_3 = 0x20080522


@contextmanager
def permissions_bind() -> Iterator[None]:
    """Also root is refused what permission bits refuse: it does without two capabilities for a while."""
    if os.geteuid():
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()
    assert libc.capget(header, sets) == 0
    before = sets[0]
    sets[0] &= ~(1 << DAC_OVERRIDE | 1 << DAC_READ_SEARCH)
    assert libc.capset(header, sets) == 0
    try:
        yield
    finally:
        sets[0] = before
        assert libc.capset(header, sets) == 0


@pytest.fixture
def place(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name in ("llama", "text.txt"):
        copy = shutil.copytree if (world / name).is_dir() else shutil.copyfile
        copy(world / name, tmp_path / name)
    (tmp_path / "readonly").mkdir(mode=0o555)
    (tmp_path / "plan.json").write_text('{"widths": {"blocks.0.feed_forward": 8}}')
    (tmp_path / "entry.toml").write_text("")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for path in (tmp_path, *tmp_path.iterdir()):
        path.chmod(0o700)


COMPRESS = "compress llama --data text.txt --samples 12 --keep 0.5 --out out"
CLOSED = {
    "llama/model.safetensors": (COMPRESS, "model.safetensors cannot be read: Permission denied"),
    "llama/config.json": ("inspect llama", "config.json is not a JSON object: [Errno 13] Permission denied"),
    "llama/tokenizer.json": (COMPRESS, "its tokenizer cannot be opened: [Errno 13] Permission denied"),
    "llama": ("inspect llama", "llama"),
    "text.txt": (COMPRESS, "text.txt: cannot be read: Permission denied"),
    "plan.json": (COMPRESS.replace("--keep 0.5", "--plan plan.json"), "plan.json"),
    "entry.toml": ("inspect llama --entry entry.toml", "entry.toml"),
    "readonly": (COMPRESS.replace("--out out", "--out readonly/out"), "readonly cannot be written to"),
}


@pytest.mark.parametrize("name", list(CLOSED))
def test_what_cannot_be_opened_is_told(name: str, command: Command, place: Path) -> None:
    arguments, told = CLOSED[name]
    (place / name).chmod(0o555 if name == "readonly" else 0)
    before = state(place)
    with permissions_bind():
        ended = command(*arguments.split())
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1), ended.err
    assert told in ended.err
    assert state(place) == before


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_stdout_without_the_characters(
    encoding: str, options: tuple[str, ...], world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(world / "llama", tmp_path / "modèle-☃")
    printed = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", printed)
    with pytest.raises(SystemExit) as ended:
        run(["inspect", str(tmp_path / "modèle-☃"), *options])
    printed.flush()
    told = printed.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
    assert ended.value.code == 0
    assert "25,056" in told if not options else json.loads(told)["model"].endswith("modèle-☃")


@pytest.mark.parametrize("values", [{"COLUMNS": "10", "TERM": "dumb"}, {"COLUMNS": "-5"}, {"COLUMNS": "x"}])
def test_a_terminal_of_another_width(
    values: dict[str, str], command: Command, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    ended = command("inspect", world / "llama")
    assert (ended.code, ended.err) == (0, "")
    assert "25,056" in ended.out


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_full_disk_behind_stdout(
    options: tuple[str, ...], world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(SystemExit) as ended:
            run(["inspect", str(world / "llama"), *options])
    told = capsys.readouterr().err
    assert ended.value.code == 2
    assert told == "error: stdout cannot be written to: No space left on device. Send it elsewhere.\n"


ODD = (
    {"OMP_NUM_THREADS": "0"},
    {"OMP_NUM_THREADS": "many"},
    {"HOME": "/nonexistent/x"},
    {"HF_HOME": "/etc/passwd"},
    {"HF_HOME": "/proc/x"},
    {"TMPDIR": "/nonexistent"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {"WORLD_SIZE": "x", "RANK": "y"},
)


@pytest.mark.audit
@pytest.mark.parametrize("values", ODD, ids=str)
def test_an_odd_environment_does_no_harm(values: dict[str, str], world: Path, tmp_path: Path) -> None:
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "statprune", "compress", world / "llama", "--data", world / "text.txt"),
            *("--keep", "0.5", "--samples", "12", "--out", tmp_path / "out", "--json", "--offload"),
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **values},
    )
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["agreement"]
    assert "Traceback" not in ended.stderr


@pytest.mark.audit
@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "nonsense://x"])
@pytest.mark.parametrize("arguments", [("inspect", "no/model"), ("evaluate", "llama", "--data", "no/data")])
def test_a_proxy_that_refuses(proxy: str, arguments: tuple[str, ...], world: Path) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    ended = subprocess.run(
        [sys.executable, "-m", "statprune", *arguments],
        cwd=world,
        capture_output=True,
        text=True,
        check=False,
        env=env | {"HTTPS_PROXY": proxy, "HTTP_PROXY": proxy, "NO_PROXY": ""},
    )
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1), ended.stderr
