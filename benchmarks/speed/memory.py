"""What runs with --offload take at the most, beside what the formula says, on checkpoints of random weights.

python -m benchmarks.speed.memory [--case NAME ...] [--max-memory 6GB] [--scratch FOLDER]

Every case is a command line in a process of its own, on one thread; results of cases that are not run stay.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from time import perf_counter
from typing import Any

import torch
from transformers import AutoTokenizer, LlamaConfig

from benchmarks.protocol import RESULTS, earlier, table
from benchmarks.protocol import write as write_results
from benchmarks.speed.random_llama import write
from statprune.anatomy.lookup import anatomy_of
from statprune.checkpoint.skeleton import skeleton
from statprune.demo import CALIBRATION, MODEL
from statprune.engine.memory import needed
from statprune.limits import limit_of

NAME, KEEP, BATCH_TOKENS = "memory", 0.7, 8192


@dataclass(frozen=True)
class Case:
    """One checkpoint and one run.

    Attributes:
        shape: (hidden size, neurons, blocks, heads, columns a head).
        vocabulary: tokens that the embeddings hold.
        method: of the run.
        data: (samples, tokens a sample).
        limit: what --max-memory says.
    """

    shape: tuple[int, int, int, int, int]
    method: str
    data: tuple[int, int]
    limit: str
    vocabulary: int = 512

    def config(self) -> LlamaConfig:
        """Of the model, as transformers takes it."""
        hidden, neurons, blocks, heads, columns = self.shape
        return LlamaConfig(
            hidden_size=hidden,
            intermediate_size=neurons,
            num_hidden_layers=blocks,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            head_dim=columns,
            vocab_size=self.vocabulary,
            dtype="bfloat16",
        )


SMALL, WIDE, SEVEN = (1024, 4096, 4, 16, 64), (2048, 5504, 2, 32, 64), (4096, 11008, 32, 32, 128)
CASES = {
    "small, refit": Case(SMALL, "refit", (16, 512), "2GB"),
    "small, stat": Case(SMALL, "stat", (16, 512), "2GB"),
    "wide, refit": Case(WIDE, "refit", (32, 256), "2.5GB"),
    "wide, stat": Case(WIDE, "stat", (32, 256), "2.5GB"),
    "ten times its memory": Case((4096, 1024, 252, 8, 64), "stat", (16, 64), "1GB"),
    "7b": Case(SEVEN, "stat", (8, 128), "6GB", 32000),
    "7b, refit": Case(SEVEN, "refit", (8, 128), "7GB", 32000),
}
"""The last three take long, and much disk: they run only when they are asked for."""

LONG = ("ten times its memory", "7b", "7b, refit")

WRAPPER = """
import re, sys
from pathlib import Path
from statprune.cli.main import run
try:
    run(sys.argv[2:])
finally:
    found = re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())
    Path(sys.argv[1]).write_text(str(int(found[1]) * 1024))
"""
"""The largest resident size of the process itself: what getrusage says of a child may be its parent's."""


def measured(name: str, case: Case, limit: str, scratch: Path) -> dict[str, Any]:
    """Make the checkpoint, run the command line, and remove both."""
    model, out, peak = scratch / "model", scratch / "out", scratch / "peak"
    started = perf_counter()
    write(model, case.config())
    AutoTokenizer.from_pretrained(MODEL).save_pretrained(model)
    made, samples, length = perf_counter() - started, *case.data
    command = ["compress", model, "--keep", KEEP, "--method", case.method, "--data", CALIBRATION]
    command += ["--samples", samples, "--seq-len", length, "--device", "cpu", "--out", out]
    command += ["--offload", "--max-memory", limit, "--json"]
    size = sum(path.stat().st_size for path in model.glob("*.safetensors"))
    print(f"{name}: {size / 1e9:.2f} GB made in {made:.0f} s; compressing", flush=True)
    started = perf_counter()
    ended = subprocess.run(
        [sys.executable, "-c", WRAPPER, str(peak), *map(str, command)],
        stdout=subprocess.PIPE,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    seconds = perf_counter() - started
    if ended.returncode != 0:
        raise SystemExit(f"{name}: exit code {ended.returncode}. {ended.stdout.decode()[-500:]}")
    record, allowed = json.loads(ended.stdout), limit_of(limit, offload=True) or 0
    least, most = formula(model, case)
    return {
        "case": name,
        "shape": list(case.shape),
        "method": case.method,
        "tokens": samples * length,
        "limit": allowed,
        "checkpoint": size,
        "times": size / allowed,
        "formula": most if most <= allowed else least,
        "hidden states": "in memory" if most <= allowed else "in files",
        "peak": int(peak.read_text()),
        "seconds": seconds,
        "making": made,
        "written": sum(path.stat().st_size for path in out.glob("*.safetensors")),
        "agreement": record["agreement"],
    }


def formula(folder: Path, case: Case) -> tuple[int, int]:
    """Bytes by engine/memory.py: with hidden states in files, and in memory."""
    model, (samples, length) = skeleton(folder).to(torch.bfloat16), case.data
    rows = max(1, BATCH_TOKENS // length)
    counts = [min(rows, samples - start) for start in range(0, samples, rows)]
    batches = [{"attention_mask": torch.empty(each, length, device="meta")} for each in counts]
    found = needed(model, anatomy_of(model), batches, case.method)
    return found.least, found.most


@contextmanager
def folder_in(scratch: Path) -> Iterator[Path]:
    made = Path(mkdtemp(dir=scratch))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def report(rows: list[dict[str, Any]]) -> None:
    def giga(size: float) -> str:
        return f"{size / 1e9:.2f} GB"

    body = table(
        [
            "case",
            "hidden x neurons, blocks",
            "method",
            "tokens",
            "checkpoint",
            "--max-memory",
            "formula",
            "peak",
            "checkpoint / limit",
            "seconds",
            "outputs after reload differ by",
        ],
        [
            [
                row["case"],
                f"{row['shape'][0]} x {row['shape'][1]}, {row['shape'][2]}",
                row["method"],
                f"{row['tokens']:,}",
                giga(row["checkpoint"]),
                giga(row["limit"]),
                f"{giga(row['formula'])}, hidden states {row['hidden states']}",
                giga(row["peak"]),
                f"{row['times']:.1f}",
                f"{row['seconds']:.0f}",
                f"{row['agreement']['difference']:.2g} of {row['agreement']['reach']:.3g}",
            ]
            for row in rows
        ],
    )
    protocol = {
        "model": "Llama of random weights, bfloat16 (random_llama.py); tokenizer and texts of stories260K",
        "run": f"statprune compress --keep {KEEP} --offload, one thread of the CPU, in a process of its own",
        "peak": "the largest resident size of that process (VmHWM), libraries and mapped files included",
        "formula": "engine/memory.py, docs/offload.md; GB are 1e9 bytes",
        "seconds": "wall time of the run, on a machine that other programs used too",
        "reload": "weights equal bit for bit, block by block, and outputs compared, by the run itself",
    }
    write_results(NAME, "Memory of runs with blocks on disk", protocol, body, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", action="append", choices=CASES, help="repeatable; else all short ones")
    parser.add_argument("--max-memory", help="instead of each case's own limit, as in 6GB")
    parser.add_argument("--scratch", type=Path, default=Path("/tmp"), help="where checkpoints are made")
    given = parser.parse_args()
    rows = earlier(RESULTS / f"{NAME}.json")
    for name in given.case or [each for each in CASES if each not in LONG]:
        with folder_in(given.scratch) as scratch:
            rows[name] = measured(name, CASES[name], given.max_memory or CASES[name].limit, scratch)
        report([rows[each] for each in CASES if each in rows])


if __name__ == "__main__":
    main()
