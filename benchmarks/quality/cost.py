"""What method refit costs: wall time over one plain forward pass of the same calibration samples, in one run.

    STATPRUNE_SHARED=... python -m benchmarks.quality.cost [--finetuned DIR]

Run it on an idle machine. Writes cost.md, which RESULTS.md includes. No gradient is computed: all of it runs
under torch.no_grad, which raises where one is asked for.
"""

import argparse
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any
from unittest.mock import patch

import statprune
from benchmarks.protocol import conditions, forward_seconds, table
from benchmarks.quality.report import HERE
from benchmarks.quality.subjects import subjects
from statprune.engine import refit as refits

KEEP = 0.5
REPEATS = 3

NO_CARRIERS = "refit, without carriers"
WAYS: dict[str, dict[str, Any]] = {
    "refit": {},
    NO_CARRIERS: {},
    "refit, with search": {"search": True},
    "stat": {"method": "stat"},
}


def without_carriers() -> AbstractContextManager[Any]:
    """Values, up and gate stay as they are cut; what that loses is a row of ablation.py."""
    return patch.object(refits, "narrow", partial(refits.narrow, carry=False))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--finetuned", type=Path)
    parser.add_argument("--subject", nargs="+", default=["wiki-llama-7m", "stsb-cosine"])
    given = parser.parse_args()
    known, lines = subjects(given.finetuned), []
    for name in given.subject:
        subject = known[name]()
        opened = subject.open()
        samples = subject.draw(opened, subject.samples, 0)
        for what, options in WAYS.items():
            model = subject.open().model.eval()
            forward = forward_seconds(model, samples.batches, REPEATS)
            started = perf_counter()
            with without_carriers() if what == NO_CARRIERS else nullcontext():
                made = statprune.compress(model, data=samples.batches, keep=KEEP, of=subject.of, **options)
            whole = perf_counter() - started
            stages = ", ".join(f"{key} {time / forward:.1f}" for key, time in made.trace.seconds.items())
            times = [f"{forward:.2f} s", f"{whole / forward:.1f}x"]
            lines.append([name, str(samples.tokens), what, *times, stages])
            print(lines[-1], flush=True)
    text = (
        f"## Cost\n\nWall time of `compress()` at keep {KEEP:g}, its survey included, over the median of "
        f"{REPEATS} plain forward passes of the same samples, same run. "
        "`python -m benchmarks.quality.cost`\n\n"
        + table(["model", "tokens", "method", "forward pass", "all", "stages, in forward passes"], lines)
        + f"\n\nthreads: {conditions()['threads']}; float32, Gram matrices in float64\n"
    )
    print(text)
    (HERE / "cost.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
