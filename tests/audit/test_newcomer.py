"""The demonstration as a newcomer runs it: a process of its own, in a folder of its own."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from statprune.demo import CALIBRATION

pytestmark = pytest.mark.audit


def words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


def test_the_demonstration_shrinks_and_still_tells_a_story(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "statprune", "demo", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    dense, *thin = result["rows"]
    assert [row["name"] for row in thin] == ["keep 0.95", "keep 0.9", "keep 0.75", "keep 0.5"]
    parameters = [row["parameters"] for row in result["rows"]]
    assert parameters == sorted(parameters, reverse=True)
    perplexities = [row["perplexity"] for row in result["rows"]]
    assert perplexities == sorted(perplexities)
    assert perplexities[1] < 1.15 * dense["perplexity"]
    for row, most in zip(thin, (0.95, 0.9, 0.75, 0.5), strict=True):
        assert most - 0.05 < row["share"] <= most
        assert (tmp_path / row["folder"] / "config.json").exists()
    # A story: English words, as in the stories it was calibrated on, and not one of them over and over.
    known = set(words(CALIBRATION.read_text(encoding="utf-8")))
    told = words(thin[0]["story"])
    assert len(told) > 40
    assert sum(word in known for word in told) > 0.9 * len(told)
    assert len(set(told)) > 0.3 * len(told)
    assert result["seconds"] < 180
