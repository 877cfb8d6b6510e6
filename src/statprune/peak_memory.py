"""Memory of a forward pass above the loaded model: on a GPU by torch, on a CPU in a fresh process."""

import gc
import json
import pickle
import subprocess
import sys
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from statprune.anatomy.lookup import architectures, is_own, register
from statprune.engine.resident import peak_resident, resident
from statprune.errors import StatpruneWarning
from statprune.evaluation.devices import evaluating
from statprune.evaluation.random_inputs import random_inputs
from statprune.evaluation.speed import prefill_seconds, waiting
from statprune.heap import give_back
from statprune.inputs import open_model

HOW = {
    "cuda": "the most that torch had allocated during a forward pass, above what it had before",
    "cpu": "of a fresh process: the largest resident size in a forward pass, above that after a short one",
}
_RESET_PEAK = "5"  # what Linux takes to forget the largest resident size so far


@dataclass(frozen=True)
class Pass:
    """A forward pass to measure: the model's folder or name, and the sizes of its inputs."""

    model: str
    rows: int
    seq_len: int
    dtype: str
    threads: int


def on_gpu(model: Any, inputs: dict[str, Tensor]) -> int:
    """Bytes, of a model on a GPU."""
    device = model.device
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    _run(model, inputs)
    return int(torch.cuda.max_memory_allocated(device) - before)


def in_fresh_process(asked: Pass) -> int | None:
    """Bytes, on a CPU; None if the system is not Linux, or, with a warning, the process does not end well."""
    if sys.platform != "linux":
        return None
    entries = [entry for entry in architectures() if is_own(entry)]
    done = subprocess.run(
        [sys.executable, "-m", "statprune.peak_memory"],
        input=pickle.dumps((asdict(asked), entries)),
        capture_output=True,
        check=False,
    )
    lines = done.stdout.splitlines()
    if done.returncode == 0 and lines:
        return int(json.loads(lines[-1]))
    said = (done.stderr.decode(errors="replace").splitlines() or ["it said nothing"])[-1]
    warnings.warn(
        f"peak memory was not measured: the process for it ended with code {done.returncode} ({said}).",
        StatpruneWarning,
        stacklevel=2,
    )
    return None


def _run(model: Any, inputs: dict[str, Tensor]) -> None:
    prefill_seconds(model, inputs, model, waiting(model.device))


def _measured(asked: Pass) -> int:
    torch.set_num_threads(asked.threads)
    model = open_model(asked.model, dtype=asked.dtype, device="cpu").model
    generator = torch.Generator().manual_seed(0)
    with evaluating(model):
        _run(model, random_inputs(model, 1, min(4, asked.seq_len), generator))
        inputs = random_inputs(model, asked.rows, asked.seq_len, generator)
        gc.collect()
        give_back()  # so that a pass that takes it again is seen to
        Path("/proc/self/clear_refs").write_text(_RESET_PEAK, encoding="ascii")
        before = resident()
        _run(model, inputs)
        most = peak_resident()
        if before is None or most is None:
            raise OSError("/proc/self/status does not tell this process's memory")
        return max(0, most - before)


if __name__ == "__main__":
    pass_asked, own_entries = pickle.loads(sys.stdin.buffer.read())
    for own in own_entries:
        register(own)
    sys.stdout.write(f"{_measured(Pass(**pass_asked))}\n")
