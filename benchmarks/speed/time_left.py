"""Time left as estimated, against the truth, at a third, a half and two thirds of real runs.

Runs are recorded, and what would have been shown at any moment is found by replaying the record.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import transformers

import statprune
from benchmarks.protocol import shared, table, write
from statprune.engine.progress import NOTHING, Facts
from statprune.time_left import Rates, TimeLeft, measured_rates

MOMENTS = {"1/3": 1 / 3, "1/2": 1 / 2, "2/3": 2 / 3}
BOUND = 1.5
SEQ_LEN = 256
RUNS: dict[str, dict[str, Any]] = {
    "refit, 128 samples": {"samples": 128, "keep": 0.75},
    "refit, 48 samples": {"samples": 48, "keep": 0.6},
    "refit, 16 samples": {"samples": 16, "keep": 0.6},
    "refit, 16 samples, search": {"samples": 16, "keep": 0.6, "search": True},
    "refit, 32 samples, of latency": {"samples": 32, "keep": 0.7, "of": "latency"},
    "stat, 128 samples, neurons alone": {"samples": 128, "keep": 0.75, "method": "stat"},
    "stat, 128 samples, per layer": {
        "samples": 128,
        "keep": 0.5,
        "method": "stat",
        "widths": "per-layer",
    },
}


@dataclass(frozen=True)
class Told:
    """What the engine told, and when, in seconds since the run began."""

    seconds: float
    stage: str
    done: int
    blocks: int
    facts: Facts


@dataclass(frozen=True)
class Recording:
    """A run: all that was told, the seconds it took, and the rates that were measured of the machine."""

    told: Sequence[Told]
    seconds: float
    rates: Rates

    def left(self, moment: float) -> float | None:
        """Seconds left as they were shown `moment` seconds after the beginning."""
        now = 0.0
        estimate = TimeLeft(rates=lambda _: self.rates, clock=lambda: now)
        for each in self.told:
            if each.seconds > moment:
                break
            now = each.seconds
            estimate(each.stage, each.done, each.blocks, each.facts)
        now = moment
        return estimate.left()

    def ratio(self, share: float) -> float:
        """The estimate over the truth when this share of the run's time is over; nan without an estimate."""
        found = self.left(share * self.seconds)
        return float("nan") if found is None else found / ((1 - share) * self.seconds)


def record(run: Callable[..., Any]) -> Recording:
    """Run `run(progress)`, and note what is told."""
    rates, told = measured_rates("cpu"), []
    began = perf_counter()

    def note(stage: str, done: int, blocks: int, facts: Facts = NOTHING, /) -> None:
        kept = Facts(facts.site, facts.error, facts.ahead, facts.device)
        told.append(Told(perf_counter() - began, stage, done, blocks, kept))

    run(note)
    return Recording(told, perf_counter() - began, rates)


def compression(model: Any, out: Path, **options: Any) -> Recording:
    """Of one `compress`."""
    return record(lambda progress: statprune.compress(model, out=out, progress=progress, **options))


def main() -> None:
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    model, data = str(shared("models/wiki-llama-7m")), str(shared("data/wikipedia/AE.jsonl.xz"))
    rows = []
    with TemporaryDirectory() as scratch:
        for number, (name, options) in enumerate(RUNS.items()):
            out = Path(scratch) / str(number)
            recording = compression(model, out, data=data, seq_len=SEQ_LEN, device="cpu", **options)
            ratios = {moment: recording.ratio(share) for moment, share in MOMENTS.items()}
            every = [recording.ratio(share / 100) for share in range(34, 91)]
            rows.append(
                {
                    "run": name,
                    "seconds": recording.seconds,
                    "left": {
                        moment: [recording.left(share * recording.seconds), (1 - share) * recording.seconds]
                        for moment, share in MOMENTS.items()
                    },
                    "ratios": ratios,
                    "least": min(every),
                    "most": max(every),
                }
            )
            print(name, round(recording.seconds, 1), ratios, min(every), max(every), flush=True)
    body = table(
        [
            "run",
            "seconds",
            *(f"left at {moment}: estimate / truth, s" for moment in MOMENTS),
            "ratios to 90%",
        ],
        [
            [
                row["run"],
                f"{row['seconds']:.1f}",
                *(f"{found:.1f} / {truth:.1f}" for found, truth in row["left"].values()),
                f"{row['least']:.2f} to {row['most']:.2f}",
            ]
            for row in rows
        ],
    )
    protocol = {
        "model": "wiki-llama-7m, CPU",
        "calibration": f"windows of {SEQ_LEN} tokens of Wikipedia",
        "run": "one `compress` that saves; the time before it, importing the package, does not count",
        "ratios": "estimate over truth at every hundredth of the run's time from 34% to 90%",
        "goal": f"within a factor {BOUND} from a third of the run on",
    }
    write("time-left", "Time left: estimate against truth", protocol, body, rows)


if __name__ == "__main__":
    main()
