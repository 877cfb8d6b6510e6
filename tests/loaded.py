"""Run after run in one process, and what each leaves: python -m tests.loaded [RUNS [large]]."""

import gc
import json
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch

import statprune
from statprune.heap import give_back
from tests.saved import save_tiny, sentences
from tests.tiny import tiny_batch, tiny_model


@dataclass(frozen=True)
class Left:
    """What runs have left.

    Attributes:
        runs: how many compressions of a model in memory, by the one method and the other in turn; with every
            fourth a measurement, a compression from it that is saved, and its evaluation.
        kilobytes: resident memory more for each run, fitted to the second half.
        peak: kilobytes that resident memory went up by over the second half.
        handles, threads: more of them at the end than after the first run.
        hooks: on the model in memory, or forwards replaced on its modules.
        files: names that remain where outputs were, and in the folder for temporary files.
    """

    runs: int
    kilobytes: float
    peak: float
    handles: int
    threads: int
    hooks: int
    files: list[str]


def resident() -> float:
    """Kilobytes of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024


def handles() -> int:
    """Files and the like that are open."""
    return len(os.listdir("/proc/self/fd"))


@contextmanager
def temporary(folder: Path) -> Iterator[Path]:
    """The folder for temporary files of this process, for a while."""
    folder.mkdir()
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield folder
    finally:
        tempfile.tempdir = before


def once(folder: Path, number: int) -> int:
    """One run; the hooks that are left on its model in memory."""
    model = tiny_model("llama", num_hidden_layers=1)
    method = "refit" if number % 2 else "stat"
    statprune.compress(model, data=[tiny_batch(model, rows=4)], keep=0.6, method=method)
    if number % 4 == 0:
        _measured_saved_evaluated(folder)
    return sum(
        len(each._forward_pre_hooks) + len(each._forward_hooks) + ("forward" in vars(each))
        for each in model.modules()
    )


def _measured_saved_evaluated(folder: Path) -> None:
    measured, out = folder / "measured", folder / "out"
    statprune.plan(folder / "model", data=sentences(), out=measured, latency=False, samples=8, seq_len=16)
    statprune.compress(measured=measured, keep=0.6, out=out)
    statprune.evaluate(out, data=sentences(), seq_len=16)
    shutil.rmtree(measured)
    shutil.rmtree(out)


def load(runs: int) -> Left:
    """Run so often, and tell what is left."""
    with tempfile.TemporaryDirectory() as made, temporary(Path(made) / "temporary") as scratch:
        folder = Path(made)
        save_tiny(folder / "model", "llama", num_hidden_layers=1)
        once(folder, 0)
        at_first = handles(), threading.active_count()
        hooks, memory = 0, []
        for number in range(1, runs + 1):
            hooks += once(folder, number)
            gc.collect()
            memory.append(resident())
        files = {path.name for path in (*folder.iterdir(), *scratch.iterdir())} - {"model", "temporary"}
    half = memory[runs // 2 :]
    slope = float(np.polyfit(np.arange(len(half)), half, 1)[0])
    return Left(
        runs=runs,
        kilobytes=slope,
        peak=max(half) - half[0],
        handles=handles() - at_first[0],
        threads=threading.active_count() - at_first[1],
        hooks=hooks,
        files=sorted(files),
    )


def load_large(runs: int) -> list[tuple[float, float]]:
    """Megabytes taken after each compression of a BERT of MiniLM's width, and those of holes in the heap."""
    sizes = {"hidden_size": 384, "num_attention_heads": 12, "intermediate_size": 1536}
    after = []
    for _ in range(runs):
        model = tiny_model("bert", num_hidden_layers=2, max_position_embeddings=128, **sizes)
        data = [tiny_batch(model, rows=8, length=128, seed=seed) for seed in range(4)]
        statprune.compress(model, data=data, keep=0.5)
        with_holes = resident()
        give_back()
        after.append((with_holes / 1024, (with_holes - resident()) / 1024))
    return after


if __name__ == "__main__":
    torch.set_num_threads(1)
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    told = load_large(count) if "large" in sys.argv else asdict(load(count))
    sys.stdout.write(json.dumps(told) + "\n")
