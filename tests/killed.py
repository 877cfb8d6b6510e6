"""Run in a process of its own: compress again and again, kill -9 at random moments, go on, and tell.

python killed.py FOLDER METHOD KILLS
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import statprune
from tests.tiny import tiny_batch, tiny_model

ROOT, METHOD, KILLS = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])


def work(out: Path) -> None:
    model = tiny_model("llama", num_hidden_layers=6)
    data = [tiny_batch(model, rows=8, length=24, seed=seed) for seed in range(3)]
    statprune.compress(model, data=data, keep=0.6, method=METHOD, out=out, resume=True)


def child(out: Path) -> int:
    """A process that does the work; forked, so that all is imported already."""
    process = os.fork()
    if process == 0:
        torch.set_num_threads(1)
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), 1)
            os.dup2(nothing.fileno(), 2)
        try:
            work(out)
        except BaseException:
            os._exit(3)
        os._exit(0)
    return process


def killed(process: int, seconds: float) -> bool:
    """Kill it after so long, if it is not done by then; whether it was killed."""
    deadline = time.perf_counter() + seconds
    while (ended := os.waitpid(process, os.WNOHANG))[0] == 0:
        if time.perf_counter() > deadline:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            return True
        time.sleep(0.002)
    if ended[1] != 0:
        raise SystemExit(f"a run that went on failed: {ended[1]}")
    return False


def main() -> None:
    started = time.perf_counter()
    killed(child(ROOT / "whole"), 600)
    whole, names = time.perf_counter() - started, sorted(p.name for p in (ROOT / "whole").iterdir())
    generator, kills, runs, half = random.Random(0), 0, 0, []
    while kills < KILLS or runs < 2 or (ROOT / f"out-{runs}.unfinished").exists():
        out = ROOT / f"out-{runs}"
        kills += killed(child(out), generator.uniform(0, 1.1 * whole) if kills < KILLS else 600)
        if out.exists():
            if sorted(p.name for p in out.iterdir()) != names:
                half.append(out.name)
            while (ROOT / f"{out.name}.unfinished").exists():  # killed behind the last step
                killed(child(out), 600)
            runs += 1
    sys.stdout.write(json.dumps({"kills": kills, "runs": runs, "half": half}))


main()
