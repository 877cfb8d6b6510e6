"""Run after run in one process: memory, handles, threads, hooks and folders are those of before."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.loaded import load

FEW, MANY = 20, 300
KILOBYTES = {FEW: 256.0, MANY: 16.0}
"""That resident memory may grow by with a run, over the second half: a run's own tensors are some 500."""


@pytest.mark.audit
def test_a_few_runs_leave_nothing() -> None:
    left = load(FEW)
    assert left.kilobytes < KILOBYTES[FEW], left
    assert (left.handles, left.threads, left.hooks, left.files) == (0, 0, 0, []), left


def told(*words: str) -> Any:
    """What `python -m tests.loaded` prints."""
    ended = subprocess.run(
        [sys.executable, "-m", "tests.loaded", *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[1],
    )
    assert ended.returncode == 0, ended.stderr
    sys.stdout.write(ended.stdout)
    return json.loads(ended.stdout)


@pytest.mark.audit
def test_hundreds_of_runs_leave_nothing() -> None:
    """In a process of its own; pytest's would keep what it captures."""
    left = told(str(MANY))
    assert left["kilobytes"] < KILOBYTES[MANY], left
    assert [left[name] for name in ("handles", "threads", "hooks", "files")] == [0, 0, 0, []], left


@pytest.mark.audit
@pytest.mark.skipif(sys.platform != "linux", reason="the heap is given back where the C library is glibc")
def test_runs_of_real_size_leave_no_holes_in_the_heap() -> None:
    after = told("3", "large")
    assert all(holes < 0.05 * megabytes for megabytes, holes in after), after
