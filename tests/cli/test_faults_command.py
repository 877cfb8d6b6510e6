"""A fault of the machine is one line with its exit code; afterwards --resume ends in the folder of before."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import statprune
from statprune.checkpoint.unfinished import folder_for
from statprune.cli.main import run
from tests.cli.conftest import Command, Ended
from tests.test_resume import content as compressed_content


def arguments(world: Path, name: str, out: Path) -> list[Any]:
    """A command that writes `out`."""
    if name == "export":
        return ["export", world / "llama", "--to", "gguf", "--no-tokenizer", "--out", out]
    given = [name, world / "llama", "--data", world / "text.txt", "--out", out]
    return [*given, "--samples", 12, "--seq-len", 32, "--keep", "0.6", "--quiet"]


def content(path: Path) -> Any:
    """All of an output; of a measurement all but its latencies."""
    if path.is_file():
        return path.read_bytes()
    if not (path / "measurement.json").exists():
        return compressed_content(path)
    measured = json.loads((path / "measurement.json").read_text())
    del measured["latency"]
    return measured, (path / "samples.safetensors").read_bytes()


@pytest.fixture(scope="module")
def whole(world: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each command writes where nothing goes wrong."""
    root, found = tmp_path_factory.mktemp("whole"), {}
    for name in ("compress", "plan", "export"):
        with pytest.raises(SystemExit) as ended:
            run([str(each) for each in arguments(world, name, root / name)])
        assert ended.value.code == 0
        found[name] = content(root / name)
    return found


def failing_after(calls: int, own: Callable[..., Any], code: int) -> Callable[..., Any]:
    """`own`, which fails with this error of the system behind so many calls."""
    done = [0]

    def call(*given: Any, **named: Any) -> Any:
        done[0] += 1
        if done[0] > calls:
            raise OSError(code, os.strerror(code))
        return own(*given, **named)

    return call


@pytest.mark.parametrize(
    ("code", "name", "calls"),
    [
        (errno.ENOSPC, "compress", 0),
        (errno.EDQUOT, "compress", 1),
        (errno.ENOSPC, "compress", 6),
        (errno.EROFS, "compress", 6),
        (errno.EIO, "compress", 6),
        (errno.EDQUOT, "plan", 5),
    ],
)
def test_a_disk_that_takes_no_more(
    code: int,
    name: str,
    calls: int,
    command: Command,
    world: Path,
    whole: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Behind some calls of fsync, where a disk that is full, or broken, tells at the latest."""
    given = arguments(world, name, tmp_path / "out")
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", failing_after(calls, os.fsync, code))
        ended = command(*given)
    refused(ended, os.strerror(code), "Make room there")
    kept = [path.name for path in tmp_path.iterdir()]
    assert kept == (["out.unfinished"] if calls > 1 else [])
    assert ("--resume" in ended.err) == bool(kept)
    assert command(*given, "--resume").code == 0
    assert content(tmp_path / "out") == whole[name]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def refused(ended: Ended, *told: str) -> None:
    """Exit code 2, one line, which says this."""
    assert ended.code == 2, ended.err
    assert ended.err.count("\n") == 1, ended.err
    assert all(each in ended.err for each in told), ended.err


def test_an_export_that_finds_no_room(
    command: Command, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", failing_after(0, os.fsync, errno.ENOSPC))
    refused(
        command(*arguments(world, "export", tmp_path / "out")), os.strerror(errno.ENOSPC), "Nothing was left"
    )
    assert not list(tmp_path.iterdir())


def test_no_room_where_nobody_thought_of_it(
    command: Command, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as hidden states in files, or what is printed: told as what it is, not as a fault of ours."""
    monkeypatch.setattr(statprune, "inspect", failing_after(0, print, errno.ENOSPC))
    refused(command("inspect", world / "llama"), "No space left on device", "Make room")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a disk in memory with these options."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = []

    def mount(options: str) -> Path:
        given = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if (
            shutil.which("mount") is None
            or subprocess.run(given, capture_output=True, check=False).returncode
        ):
            pytest.skip("mounting is not allowed here")
        mounted.append(folder)
        return folder

    yield mount
    for each in mounted:
        subprocess.run(["umount", str(each)], check=True)


@pytest.mark.parametrize("kilobytes", [32, 160])
def test_a_small_disk(
    kilobytes: int,
    command: Command,
    world: Path,
    whole: dict[str, Any],
    small_disk: Callable[[str], Path],
) -> None:
    """One that is full on the way; larger, it takes the rest."""
    disk = small_disk(f"size={kilobytes}k")
    given = arguments(world, "compress", disk / "out")
    refused(command(*given), "could not be written", "Make room")
    assert not (disk / "out").exists()
    subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
    assert command(*given, "--resume").code == 0
    assert content(disk / "out") == whole["compress"]


@pytest.mark.parametrize("name", ["compress", "plan", "export"])
def test_a_disk_that_can_only_be_read(
    name: str, command: Command, world: Path, small_disk: Callable[[str], Path]
) -> None:
    disk = small_disk("ro")
    refused(command(*arguments(world, name, disk / "out")), "cannot be written to", "Give another folder")


def test_a_slow_disk(
    command: Command, world: Path, whole: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (time.sleep(0.02), own(handle))[1])
    assert command(*arguments(world, "compress", tmp_path / "out")).code == 0
    assert content(tmp_path / "out") == whole["compress"]


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory.\nTried")])
def test_no_memory_where_nothing_can_be_halved(
    error: Exception, command: Command, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("statprune.engine.refit.eliminate", fail)
    ended = command(*arguments(world, "compress", tmp_path / "out"))
    refused(ended, "memory is short", "--offload", "--seq-len", "--device")
    assert folder_for(tmp_path / "out").exists()


def test_a_clock_that_is_set_back(
    command: Command, world: Path, whole: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look at it an hour earlier than the one before."""
    now = [time.time()]

    def earlier() -> float:
        now[0] -= 3600
        return now[0]

    monkeypatch.setattr(time, "time", earlier)
    assert command(*arguments(world, "compress", tmp_path / "out")).code == 0
    assert content(tmp_path / "out") == whole["compress"]
    record = json.loads((tmp_path / "out" / "statprune.json").read_text())
    assert all(0 < seconds < 600 for seconds in record["trace"]["seconds"].values())


def started(given: list[Any], pause: float, folder: Path) -> tuple[int, int]:
    """The command in a process of its own, slow at every fsync; its number, and where it tells of each."""
    reading, writing = os.pipe()
    process = os.fork()
    if process:
        os.close(writing)
        return process, reading
    own = os.fsync

    def slow(handle: int) -> None:
        os.write(writing, b"x")
        time.sleep(pause)
        own(handle)

    os.fsync = slow
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what starts the tests may ignore it
    code = 1
    with (folder / "err").open("w") as sys.stderr, (folder / "out").open("w") as sys.stdout:
        try:
            run([str(each) for each in given])
        except SystemExit as ended:
            code = int(ended.code or 0)
    os._exit(code)


@pytest.mark.parametrize(
    ("signals", "code", "told"),
    [
        ((signal.SIGINT,), 130, "interrupted"),
        ((signal.SIGTERM,), 143, "terminated"),
        ((signal.SIGINT, signal.SIGINT), 130, "interrupted"),
    ],
)
def test_signals_keep_the_state(
    signals: tuple[int, ...], code: int, told: str, world: Path, whole: dict[str, Any], tmp_path: Path,
    command: Command, tmp_path_factory: pytest.TempPathFactory,
) -> None:  # fmt: skip
    """To a process of its own, in the middle of its work; a second one while it tidies up."""
    given, said = arguments(world, "compress", tmp_path / "out"), tmp_path_factory.mktemp("said")
    process, telling = started(given, 0.05, said)
    for _ in range(7):
        assert os.read(telling, 1)
    for each in signals:
        os.kill(process, each)
        time.sleep(0.01)
    ended = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    os.close(telling)
    err = (said / "err").read_text()
    assert ended == code, err
    assert err.startswith(told), err
    assert "--resume" in err
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["out.unfinished"]
    assert command(*given, "--resume").code == 0
    assert content(tmp_path / "out") == whole["compress"]


def test_two_runs_into_one_folder(
    world: Path,
    whole: dict[str, Any],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    command: Command,
) -> None:
    """The second is refused; what a killed one has locked is free."""
    given = arguments(world, "compress", tmp_path / "out")
    process, telling = started(given, 30, tmp_path_factory.mktemp("said"))
    assert os.read(telling, 1)
    refused(command(*given), "holds the state of a run")
    refused(command(*given, "--resume"), "another process is at work in", "Wait for it")
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    os.close(telling)
    assert command(*given, "--resume").code == 0
    assert content(tmp_path / "out") == whole["compress"]
