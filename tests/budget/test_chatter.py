"""HiGHS's own line does not reach stdout, and everything else does."""

import os
import subprocess
import sys
import tempfile
from contextlib import suppress

import pytest

from statprune.budget.chatter import LINE, without_chatter


def test_its_line_goes_and_all_else_comes_in_order() -> None:
    code = (
        "import ctypes, os\n"
        "from statprune.budget.chatter import LINE, without_chatter\n"
        "libc = ctypes.CDLL(None)\n"
        "print('before')\n"
        "with without_chatter():\n"
        "    libc.puts(b'of a library')\n"
        "    libc.puts(LINE)\n"
        "    libc.fflush(None)\n"
        "    print('of python', flush=True)\n"
        "    os.write(1, LINE + b' and more\\n')\n"
        "    libc.puts(LINE)\n"
        "    print('no end of line', end='')\n"
        "print(', after')\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    told = f"before\nof a library\nof python\n{LINE.decode()} and more\nno end of line"
    assert ended.stdout.replace(LINE.decode() + "\n", "") == ended.stdout
    assert ended.stdout == f"{told}, after\n"


def test_it_is_put_back_when_the_solver_fails(capfd: pytest.CaptureFixture[str]) -> None:
    with suppress(ZeroDivisionError), without_chatter():
        os.write(1, b"told\n")
        _ = 1 / 0
    os.write(1, b"and later\n")
    assert capfd.readouterr().out == "told\nand later\n"


def test_threads_that_come_at_once_and_end_in_any_order(capfd: pytest.CaptureFixture[str]) -> None:
    first, second = without_chatter(), without_chatter()
    first.__enter__()
    os.write(1, b"one\n")
    second.__enter__()
    os.write(1, b"two\n")
    first.__exit__(None, None, None)
    os.write(1, b"three\n")
    second.__exit__(None, None, None)
    os.write(1, b"four\n")
    with without_chatter():
        os.write(1, LINE + b"\nfive\n")
    assert capfd.readouterr().out == "one\ntwo\nthree\nfour\nfive\n"


def test_without_a_stdout_nothing_is_done() -> None:
    code = (
        "import os, sys; os.close(1); sys.stdout = None\n"
        "from statprune.budget.chatter import without_chatter\n"
        "with without_chatter():\n"
        "    try: os.write(1, b'unheard')\n"
        "    except OSError: sys.stderr.write('closed, ')\n"
        "sys.stderr.write('done')"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stderr == "closed, done"


def test_without_room_for_a_file_nothing_is_done(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with without_chatter():
        os.write(1, b"heard\n")
    assert capfd.readouterr().out == "heard\n"
