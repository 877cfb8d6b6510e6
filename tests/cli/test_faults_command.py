"""A fault of the machine is one line with its exit code; afterwards --resume ends in the folder of before."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Command
from tests.cli.test_commands import COMPRESS
from tests.test_resume import content

PLAN = [each for each in COMPRESS if each not in ("--keep", "0.5")]


def arguments(world: Path, name: str, out: Path) -> list[Any]:
    given = [name, world / "llama", "--data", world / "text.txt", "--out", out, *COMPRESS]
    return [*given, "--keep", "0.6"] if name == "compress" else given


def failing_after(writes: int, own: Callable[..., Any], code: int) -> Callable[..., Any]:
    """`own`, which fails with this error of the system at the write of that number, and at all after it."""
    done = [0]

    def write(*given: Any, **named: Any) -> Any:
        done[0] += 1
        if done[0] > writes:
            raise OSError(code, os.strerror(code))
        return own(*given, **named)

    return write


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("writes", [0, 1, 3])
def test_a_disk_that_takes_no_more(
    code: int, writes: int, command: Command, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state and the folder are flushed to the disk, where a full one tells at the latest."""
    given = arguments(world, "compress", tmp_path / "out")
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", failing_after(writes, os.fsync, code))
        ended = command(*given)
    assert ended.code == 2
    assert os.strerror(code) in ended.err.splitlines()[-1]
    assert "--resume" in ended.err.splitlines()[-1]
    assert "Traceback" not in ended.err
    assert [path.name for path in tmp_path.iterdir()] == ["out.unfinished"]
    assert command(*given, "--resume").code == 0
    assert command(*arguments(world, "compress", tmp_path / "whole")).code == 0
    assert content(tmp_path / "out") == content(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]
