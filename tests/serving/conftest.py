"""Per-layer folders of every model type, each saved when it is first asked for."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.checkpoint.folders import Case
from tests.saved import letter_tokenizer


@pytest.fixture(scope="session")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Case]:
    root = tmp_path_factory.mktemp("uneven")

    @cache
    def made(model_type: str) -> Case:
        case = Case(model_type, None, "uneven", root)
        letter_tokenizer().save_pretrained(case.path)
        return case

    return made


@pytest.fixture
def child(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Run a script beside this file in a process of its own; give what its last line says as JSON."""

    def run(script: str, *arguments: str, **environment: str) -> dict[str, Any]:
        path = Path(__file__).with_name(script)
        done = subprocess.run(
            [sys.executable, str(path), *arguments],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), **environment},
        )
        assert done.returncode == 0, done.stderr[-3000:]
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    return run
