"""A command that was killed when all was done but for its state: again, with --resume."""

from pathlib import Path

import pytest

from statprune.checkpoint import unfinished as states
from tests.cli.conftest import Command


@pytest.mark.parametrize("name", ["plan", "compress"])
def test_what_was_finished_is_recognised(
    name: str, command: Command, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, state = tmp_path / "out", tmp_path / "out.unfinished"
    given = (name, world / "llama", "--data", world / "text.txt", "--samples", 12, "--seq-len", 32)
    given += ("--keep", 0.75, "--offload", "--max-memory", "2GB", "--resume", "--out", out)

    def killed(folder: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(states, "_remove", killed)
        assert command(*given).code == 130
    assert state.exists()
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    ended = command(*given)
    assert (ended.code, ended.err) == (0, "")
    assert f"{out} was finished before; what that run had left beside it is removed." in ended.out
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert not state.exists()
    again = command(*given)
    assert again.code == 2
    assert "exists" in again.err
