"""Run after run in one process: memory, handles, threads, hooks and folders are those of before."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.loaded import load

FEW, MANY = 20, 300
KILOBYTES = {FEW: 256.0, MANY: 16.0}
"""That resident memory may grow by with a run, over the second half: a run's own tensors are some 500."""


def test_a_few_runs_leave_nothing() -> None:
    left = load(FEW)
    assert left.kilobytes < KILOBYTES[FEW], left
    assert (left.handles, left.threads, left.hooks, left.files) == (0, 0, 0, []), left


@pytest.mark.audit
def test_hundreds_of_runs_leave_nothing() -> None:
    """In a process of its own; pytest's would keep what it captures."""
    ended = subprocess.run(
        [sys.executable, "-m", "tests.loaded", str(MANY)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[1],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert ended.returncode == 0, ended.stderr
    left = json.loads(ended.stdout)
    sys.stdout.write(ended.stdout)
    assert left["kilobytes"] < KILOBYTES[MANY], left
    assert [left[name] for name in ("handles", "threads", "hooks", "files")] == [0, 0, 0, []], left
