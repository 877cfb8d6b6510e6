"""Killed at random moments: whole or not there, the same bits in the end, nothing of the user's touched."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.killed import KINDS, survive


@pytest.mark.parametrize("kind", ["refit", "plan", "export"])
def test_a_few_kills(kind: str, tmp_path: Path) -> None:
    told = survive(tmp_path, kind, 1, seed=1)
    assert told.kills == 1
    assert not told.half
    assert not told.touched
    assert all(name.startswith(".out-") for name in told.left)


@pytest.mark.audit
@pytest.mark.parametrize(("kind", "kills"), list(zip(KINDS, (50, 50, 40, 40, 20), strict=True)))
def test_two_hundred_kills(kind: str, kills: int, tmp_path: Path) -> None:
    script = Path(__file__).with_name("killed.py")
    ended = subprocess.run(
        [sys.executable, script, tmp_path, kind, str(kills)],
        capture_output=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr.decode()
    told = json.loads(ended.stdout)
    assert told["kills"] == kills
    assert told["runs"] >= 2
    assert told["half"] == []
    assert not told["touched"]
    # An export has no state to go on from: what a killed one has begun stays, under a name that says so.
    begun = [name for name in told["left"] if name.endswith(".partial") and name.startswith(".out-")]
    assert told["left"] == (begun if kind == "export" else [])
