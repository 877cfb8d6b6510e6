"""Several processes with their blocks on disk make the model that one process makes in memory."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import statprune
from statprune.anatomy.lookup import anatomy_of
from statprune.checkpoint.load import load
from statprune.checkpoint.unfinished import folder_for
from statprune.engine.memory import needed
from tests.test_ranks import Command, arguments, given, texts_and_model
from tests.tiny import tiny_batch


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Its folder; what processes leave elsewhere would lie in `scratch`."""
    (tmp_path / "scratch").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    return texts_and_model(tmp_path / "given")


def limit_of(model: Path, method: str) -> int:
    """So many bytes that hidden states have to lie in files."""
    opened = load(model / "llama").model
    batches = [tiny_batch(opened, rows=90, length=64)]
    return needed(opened, anatomy_of(opened), batches, method).most - 1


def offloaded(model: Path, out: Path, method: str) -> list[Any]:
    more = ["--method", method, "--offload", "--max-memory", limit_of(model, method)]
    return [*arguments(model, out), *more]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load(folder).model.state_dict()


@torch.no_grad()
def require_the_model_of_one_process(model: Path, out: Path, method: str) -> None:
    """Outputs of the folder `out` are those of the one that a process makes in memory."""
    alone = out.with_name("alone")
    statprune.compress(model / "llama", method=method, **given(model, alone))
    expected, found = load(alone).model, load(out).model
    assert [*found.state_dict()] == [*expected.state_dict()]
    batch = tiny_batch(expected, rows=6, length=20, seed=77)
    logits = expected(**batch)[0]
    assert float((found(**batch)[0] - logits).abs().max()) <= 1e-6 * float(logits.abs().max())


def killed_behind(states: int, command: Command, out: Path) -> None:
    """Kill the first process, which keeps the state, when that has so many files; the other one ends too."""
    while len(list(folder_for(out).glob("*.safetensors"))) < states:
        assert command.process.poll() is None, command.ended()
        time.sleep(0.005)
    os.kill(command.ranks()[0], signal.SIGKILL)
    code, _, errors = command.ended()
    assert code == 1
    assert "rank 0 of 2 was lost" in "".join(errors), errors
    assert not out.exists()


def left_in(scratch: Path) -> int:
    """Folders that are not torchrun's own."""
    return sum(not path.name.startswith("torchelastic") for path in scratch.iterdir())


@pytest.mark.parametrize("method", ["refit", pytest.param("stat", marks=pytest.mark.audit)])
def test_it_is_the_model_of_one_process(method: str, model: Path, tmp_path: Path) -> None:
    """And each keeps its hidden states in files, of which nothing is left."""
    code, told, errors = Command(2, *offloaded(model, tmp_path / "out", method)).ended()
    assert (code, errors) == (0, [])
    assert "saved and verified" in told
    assert {path.name for path in tmp_path.iterdir()} == {"given", "scratch", "out"}
    assert left_in(tmp_path / "scratch") == 0
    require_the_model_of_one_process(model, tmp_path / "out", method)


@pytest.mark.audit
@pytest.mark.parametrize("method", ["refit", "stat"])
def test_killed_and_resumed_it_is_the_model_of_one_process(method: str, model: Path, tmp_path: Path) -> None:
    out, command = tmp_path / "out", offloaded(model, tmp_path / "out", method)
    killed_behind(2, Command(2, *command, "--timeout", 20), out)
    assert left_in(tmp_path / "scratch") <= 1  # by the process that was killed
    code, told, errors = Command(2, *command, "--resume").ended()
    assert (code, errors) == (0, [])
    assert "saved and verified" in told
    assert {path.name for path in tmp_path.iterdir()} == {"given", "scratch", "out"}
    assert left_in(tmp_path / "scratch") <= 1
    require_the_model_of_one_process(model, out, method)


@pytest.mark.audit
@pytest.mark.parametrize("method", ["refit", "stat"])
def test_it_is_bit_for_bit_what_so_many_processes_make_in_memory(
    method: str, model: Path, tmp_path: Path
) -> None:
    """As one run, and killed at four places and resumed."""
    memory = Command(2, *arguments(model, tmp_path / "memory"), "--method", method)
    whole = Command(2, *offloaded(model, tmp_path / "whole", method))
    assert [command.ended()[0] for command in (memory, whole)] == [0, 0]
    out, command = tmp_path / "out", offloaded(model, tmp_path / "out", method)
    for states in (1, 4, 7, 10):
        killed_behind(states, Command(2, *command, "--resume", "--timeout", 20), out)
    assert Command(2, *command, "--resume").ended()[0] == 0
    expected = weights(tmp_path / "memory")
    for name in ("whole", "out"):
        found = weights(tmp_path / name)
        assert all(torch.equal(value, found[key]) for key, value in expected.items())
    require_the_model_of_one_process(model, out, method)
