"""A command is killed (kill -9) at random moments and gone on with; what is found after each kill is told.

python tests/killed.py FOLDER KIND KILLS [SEED]    KIND: refit, stat, save, plan, export
"""

import faulthandler
import json
import os
import random
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import statprune
from statprune.export.gguf import export_gguf
from tests.tiny import tiny_batch, tiny_model

KINDS = ("refit", "stat", "save", "plan", "export")
"""Compressions by both methods; one that is killed once its blocks are done; a measurement; a GGUF file."""

# Its own lock is one of all processes that were forked: a killed one never lets it go.
tqdm.set_lock(threading.RLock())

ENOUGH = 200.0
"""Seconds that no work here takes, not even on a slow machine: what takes them hangs."""


@dataclass
class Told:
    """What was found.

    Attributes:
        kills: how many processes were killed.
        early: how many of them before the output had its name.
        runs: outputs that came to be, all of them equal to the one of a run that nobody killed.
        half: outputs that stood under their final name and were something else, after a kill or at the end.
        touched: whether what lies beside them was changed.
        left: names that remain when all is done, but for outputs and what was there before.
    """

    kills: int = 0
    early: int = 0
    runs: int = 0
    half: list[str] = field(default_factory=list)
    touched: bool = False
    left: list[str] = field(default_factory=list)


def content(path: Path) -> dict[str, bytes]:
    """Every file of an output; of a record all but what the run took."""
    found = {}
    for each in sorted(each for each in (path, *path.rglob("*")) if each.is_file()):
        found[each.relative_to(path).as_posix()] = each.read_bytes()
        if each.name == "statprune.json":
            record = json.loads(each.read_text())
            del record["trace"]["seconds"], record["trace"]["memory"]
            found[each.relative_to(path).as_posix()] = json.dumps(record).encode()
    return found


def work(kind: str, out: Path, compared: Callable[[], Any]) -> None:
    """Write `out`; `compared` is called when only saving is left."""
    if kind == "export":
        export_gguf(out.parent / "mine" / "model", out, tokenizer=False)
        return
    model = tiny_model("llama", num_hidden_layers=6)
    data = [tiny_batch(model, rows=8, length=24, seed=seed) for seed in range(3)]
    if kind == "plan":
        statprune.plan(model, data=data, latency=False, out=out, resume=True)
        return

    def progress(stage: str, *_: Any) -> None:
        if stage == "compare":
            compared()

    method = "stat" if kind == "stat" else "refit"
    statprune.compress(model, data=data, keep=0.6, method=method, out=out, resume=True, progress=progress)


def child(kind: str, out: Path) -> tuple[int, int]:
    """A process that does the work, and where it writes when only saving is left; all is imported already."""
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        torch.set_num_threads(1)
        faulthandler.enable(os.dup(2))  # where it hung
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), 1)
            os.dup2(nothing.fileno(), 2)
        try:
            work(kind, out, lambda: os.write(writing, b"x"))
        except BaseException:
            os._exit(3)
        os._exit(0)
    os.close(writing)
    return process, reading


def killed(
    started: tuple[int, int], seconds: float, *, saving: bool = False, by: int = signal.SIGKILL
) -> bool:
    """Kill it after so long, of its saving if that is asked, unless it is done; whether it was killed."""
    process, reading = started
    try:
        if saving:
            select.select([reading], [], [], ENOUGH)
        deadline = time.perf_counter() + seconds
        while (ended := os.waitpid(process, os.WNOHANG))[0] == 0:
            if time.perf_counter() > deadline:
                os.kill(process, by)
                os.waitpid(process, 0)
                return True
            time.sleep(0.001)
    finally:
        os.close(reading)
    if ended[1] != 0:
        raise SystemExit(f"a run that went on failed: {ended[1]}")
    return False


def done(kind: str, out: Path) -> float:
    """Do it, or go on with it, to its end; seconds, of kind "save" those of saving."""
    started = child(kind, out)
    if kind == "save":
        select.select([started[1]], [], [], ENOUGH)
    begun = time.perf_counter()
    if killed(started, ENOUGH, by=signal.SIGABRT):
        raise SystemExit(f"{kind} into {out} did not end in {ENOUGH:g} s")
    return time.perf_counter() - begun


def survive(root: Path, kind: str, kills: int, seed: int = 0) -> Told:
    """Kill `kind` so often in the empty folder `root`; go on each time until the output is there."""
    assert statprune.compress, statprune.plan  # imported once: kills are to fall behind that
    mine = root / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("mine")
    tiny_model("llama").save_pretrained(mine / "model")
    before = {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in mine.rglob("*")}
    # The shorter of two: where one was held up, kills by its time would all come too late.
    seconds = min(done(kind, root / "whole"), done(kind, root / "again"))
    wanted = content(root / "whole")
    told, generator = Told(), random.Random(seed)
    while told.kills < kills or told.runs < 2 or (root / f"out-{told.runs}.unfinished").exists():
        out = root / f"out-{told.runs}"
        if told.kills < kills:
            hit = killed(child(kind, out), generator.uniform(0, 1.1 * seconds), saving=kind == "save")
        else:
            done(kind, out)
            hit = False
        told.kills += hit
        told.early += hit and not out.exists()
        if out.exists():
            if content(out) != wanted:
                told.half.append(out.name)
            if (root / f"{out.name}.unfinished").exists():  # killed behind the last step
                done(kind, out)
            told.half += [out.name] if content(out) != wanted else []
            told.runs += 1
    after = {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in mine.rglob("*")}
    told.touched = after != before
    known = {"mine", "whole", "again", *(f"out-{number}" for number in range(told.runs))}
    told.left = sorted(path.name for path in root.iterdir() if path.name not in known)
    return told


if __name__ == "__main__":
    given = sys.argv[1:]
    found = survive(Path(given[0]), given[1], int(given[2]), int(given[3]) if len(given) > 3 else 0)
    sys.stdout.write(json.dumps(asdict(found)))
