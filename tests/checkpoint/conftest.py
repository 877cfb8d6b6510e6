"""Folders of every model type, saved once for all tests of this package, and processes of their own."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from folders import CASES, Case


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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
            env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(tmp_path / "modules")},
        )
        assert result.returncode == 0, result.stderr[-3000:]
        return result.stdout

    return run
