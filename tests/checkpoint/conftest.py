"""Folders of every model type, saved once for all tests of this package, and processes of their own."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from folders import CASES, Case


@pytest.fixture(scope="session")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    root = tmp_path_factory.mktemp("folders")
    return [Case(*case, root) for case in CASES]


@pytest.fixture
def fresh_python(tmp_path: Path) -> Callable[..., str]:
    """Run a script in a process of its own; give what it printed."""

    def run(script: str, *arguments: str) -> str:
        result = subprocess.run(
            [sys.executable, "-c", script, *arguments],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules")},
        )
        assert result.returncode == 0, result.stderr[-3000:]
        return result.stdout

    return run
