"""With --json there is one object on stdout for every command, whatever else is printed there."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.audit
def test_every_command_prints_one_object_and_nothing_else(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "llama", tmp_path / "llama")
    shutil.copy(world / "text.txt", tmp_path)
    environment = {name: value for name, value in os.environ.items() if name != "HF_TOKEN"}
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("noisy.py"), tmp_path],
        capture_output=True,
        text=True,
        check=False,
        env={**environment, "HF_HOME": str(tmp_path / "home"), "COLUMNS": "80"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.endswith("\nafter\n"), "stdout was not given back"
    rest, found, decoder = done.stdout.removesuffix("after\n"), [], json.JSONDecoder()
    while rest.strip():
        content, end = decoder.raw_decode(rest)
        found.append(content)
        rest = rest[end:].lstrip()
    keys = (
        "model_type",
        "answers",
        "plan",
        "perplexity",
        "pruned",
        "inputs",
        "error",
        "tasks",
        "error",
        "error",
    )
    assert len(found) == len(keys)
    for content, key in zip(found, keys, strict=True):
        assert key in content, content
    assert done.stderr.count("noise") >= 4
