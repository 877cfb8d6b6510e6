"""`statprune explore` refuses in one line what it cannot show, before anything is started."""

from importlib import util
from pathlib import Path

import pytest

from statprune.cli import explore
from tests.cli.conftest import Command


def test_a_missing_gradio_names_the_extra(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explore, "find_spec", lambda name: None)
    ended = command("explore", tmp_path)
    assert ended.code == 2
    assert "pip install 'statprune[explore]'" in ended.err
    assert ended.err.count("\n") == 1


def test_a_bad_folder_is_one_line(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        explore, "find_spec", util.find_spec if util.find_spec("gradio") else lambda name: name
    )
    ended = command("explore", tmp_path, "--no-browser")
    assert ended.code == 2
    assert "holds no measurement.json" in ended.err
    assert ended.err.count("\n") == 1
