"""Several processes make one model together: the one that one process makes."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

import statprune
from statprune.anatomy.ranks import ALONE
from statprune.checkpoint.load import load
from statprune.checkpoint.unfinished import folder_for
from tests.ranked import CASES, RESUMED
from tests.saved import save_tiny, sentences
from tests.tiny import tiny_batch

SHORT = (
    "llama, refit", "bert, refit", "mixtral, refit", "gpt2, stat", "mixtral, stat", "bart, refit",
    "one batch", "spliced samples", "gaussian sketch", "tall QR", "search", "many tokens",
    "many tokens, biases", "narrow values",
)  # fmt: skip
"""Cases that run always."""

ROUNDED = "bfloat16's rounding"
"""The case whose last bits, moved, move a plan's cuts and outputs: products are rounded to eight bits."""

STARTED = (sys.executable, "-m", "torch.distributed.run", "--standalone")


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONWARNINGS": "ignore"}


def ranked(folder: Path, processes: int, *names: str) -> Path:
    """Run cases in so many processes; the folder with what they made."""
    script = str(Path(__file__).with_name("ranked.py"))
    command = [*STARTED, f"--nproc-per-node={processes}", script, str(folder), *names]
    ended = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-5000:]
    return folder


@torch.no_grad()
def require_the_same(name: str, processes: int, folder: Path) -> None:
    """Of all processes the same bits; plan, cuts and outputs are those of one process, nearly if ROUNDED."""
    digests = {(folder / f"{name}-{rank}.txt").read_text() for rank in range(processes)}
    assert len(digests) == 1
    weights, record = torch.load(folder / f"{name}.pt", weights_only=False)
    alone = CASES[name](ALONE)
    divergence, output = (2e-2, 1e-2) if name == ROUNDED else (1e-4, 3e-6)
    assert record["plan"] == alone.record["plan"]
    if name != ROUNDED:
        kept = [site["kept"] for site in record["trace"]["sites"]]
        assert kept == [each.kept for each in alone.trace.sites]
    # Logarithms of float32: up to 2e-8 of 1e-5 was seen, and 1e-10 where they were of float64.
    for number in ("predicted", "divergence"):
        expected = getattr(alone.trace, number)
        near = None if expected is None else pytest.approx(expected, rel=divergence, abs=5e-8)
        assert record["trace"][number] == near
    model = alone.model
    batch = tiny_batch(model, rows=6, length=20, seed=77)
    expected = model(**batch)[0].clone()
    model.load_state_dict(weights)
    assert float((model(**batch)[0] - expected).abs().max()) <= output * float(expected.abs().max())


def require_gone_on(name: str, method: str, folder: Path) -> None:
    """Of a run that was stopped: the second process was told why, and went on with what the first knew."""
    out = folder / f"{name}, {method}"
    told = [(folder / f"{out.name}-{rank}.txt").read_text() for rank in (0, 1)]
    assert told == ["stopped", "RankLostError: rank 0: StoppedError"]
    assert not folder_for(out).exists()
    found = load(out).model.state_dict()
    expected = CASES[f"llama, {method}"](ALONE).model.state_dict()
    assert [*found] == [*expected]
    assert all(torch.allclose(value, found[name], atol=1e-6, rtol=0) for name, value in expected.items())


def test_two_processes_make_the_model_of_one(tmp_path: Path) -> None:
    """One start of processes for all of it: that takes longest."""
    save_tiny(tmp_path / "llama", "llama")
    ranked(tmp_path, 2, *SHORT, *RESUMED)
    for name in SHORT:
        require_the_same(name, 2, tmp_path)
    for name, methods in RESUMED.items():
        for method in methods:
            require_gone_on(name, method, tmp_path)


@pytest.mark.audit
@pytest.mark.parametrize("processes", [2, 3, 5])
def test_so_do_more_processes_in_every_case(processes: int, tmp_path: Path) -> None:
    ranked(tmp_path, processes)
    for name in CASES:
        require_the_same(name, processes, tmp_path)


class Command:
    """`torchrun -m statprune compress`, in so many processes."""

    def __init__(self, processes: int, *arguments: Any) -> None:
        start = [*STARTED, f"--nproc-per-node={processes}", "-m", "statprune", "compress"]
        self.process = subprocess.Popen(
            [*start, *map(str, arguments)], env=environment(), stdout=-1, stderr=-1, text=True
        )

    def ranks(self) -> dict[int, int]:
        """The process of each rank."""
        found = {}
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for child in children:
            variables = Path(f"/proc/{child}/environ").read_text().split("\0")
            found |= {int(each[5:]): int(child) for each in variables if each.startswith("RANK=")}
        return found

    def ended(self) -> tuple[int, str, list[str]]:
        """Its exit code, what it printed, and the lines with which its processes fail."""
        out, err = self.process.communicate(timeout=120)
        return self.process.returncode, out, [line for line in err.splitlines() if "error: " in line]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return texts_and_model(tmp_path_factory.mktemp("model"))


def texts_and_model(folder: Path) -> Path:
    """The folder, with a model of six blocks and 300 texts."""
    save_tiny(folder / "llama", "llama", num_hidden_layers=6)
    lines = (json.dumps({"text": line}) + "\n" for line in sentences(300))
    (folder / "data.jsonl").write_text("".join(lines))
    return folder


def arguments(model: Path, out: Path) -> list[Any]:
    sizes = ["--samples", 90, "--seq-len", 64, "--keep", 0.6]
    return [model / "llama", "--data", model / "data.jsonl", "--out", out, *sizes]


def given(model: Path, out: Path) -> dict[str, Any]:
    return {"data": str(model / "data.jsonl"), "out": out, "samples": 90, "seq_len": 64, "keep": 0.6}


@pytest.mark.parametrize("lost", [2, pytest.param(0, marks=pytest.mark.audit)])
def test_a_process_that_is_killed_ends_the_run(lost: int, model: Path, tmp_path: Path) -> None:
    command = Command(3, *arguments(model, tmp_path / "out"), "--timeout", 20)
    state = folder_for(tmp_path / "out")
    while len(list(state.glob("*.safetensors"))) < 2:
        assert command.process.poll() is None, command.ended()
        time.sleep(0.01)
    os.kill(command.ranks()[lost], signal.SIGKILL)
    code, _, errors = command.ended()
    assert code == 1
    assert len(errors) == 2, errors
    for line in errors:
        assert f"rank {lost} of 3 was lost: " in line
        assert "start all 3 processes again" in line
    assert ("go on with --resume" in "".join(errors)) == (lost != 0)
    assert [path.name for path in tmp_path.iterdir()] == ["out.unfinished"]
    statprune.compress(model / "llama", resume=True, **given(model, tmp_path / "out"))
    statprune.compress(model / "llama", **given(model, tmp_path / "whole"))
    whole, found = (load(tmp_path / name).model.state_dict() for name in ("whole", "out"))
    assert all(torch.allclose(value, found[name], atol=1e-6) for name, value in whole.items())


@pytest.mark.audit
def test_a_process_that_hangs_is_lost_after_the_timeout(model: Path, tmp_path: Path) -> None:
    command = Command(2, *arguments(model, tmp_path / "out"), "--timeout", 5)
    while not list(folder_for(tmp_path / "out").glob("*.safetensors")):
        assert command.process.poll() is None, command.ended()
        time.sleep(0.01)
    stopped, started = command.ranks()[1], time.monotonic()
    os.kill(stopped, signal.SIGSTOP)
    try:
        code, _, errors = command.ended()
    finally:
        with suppress(ProcessLookupError):  # torchrun has
            os.kill(stopped, signal.SIGKILL)
    assert code == 1
    assert errors[0].startswith("error: rank 1 of 2 was lost: no sign of life for 5 s")
    assert 4 < time.monotonic() - started < 60


def test_what_cannot_be_used_is_told_once(model: Path, tmp_path: Path) -> None:
    """By the first process, in one line; all end, and nothing is left."""
    code, out, errors = Command(2, *arguments(model, tmp_path / "out"), "--samples", 1).ended()
    assert (code, out) == (1, "")  # torchrun's own code; that of its processes is 2
    assert len(errors) == 1, errors
    assert "method refit holds every fourth one out" in errors[0]
    assert not list(tmp_path.iterdir())
