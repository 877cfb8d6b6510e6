"""Methods x models x budgets x seeds: run what is missing, then write RESULTS.md.

    python benchmarks/finetune.py ...                                         # once, see there
    STATPRUNE_SHARED=... python -m benchmarks.quality --finetuned DIR [--subject NAME] [--method NAME]

Every result is a line of results.jsonl as soon as it is there; a run that was stopped goes on where it was,
and several may run side by side. `--model NAME_OR_FOLDER` adds a causal model of the hub.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.protocol import conditions, forward_seconds, rows_of
from benchmarks.quality.methods import METHODS, Case
from benchmarks.quality.report import HERE, write_report
from benchmarks.quality.subjects import Subject, decoder, subjects

SEEDS = (0, 1, 2)
RESULTS = HERE / "results.jsonl"


def done() -> dict[tuple[Any, ...], dict[str, Any]]:
    """Results by (subject, method, keep, seed)."""
    return {(row["subject"], row["method"], row["keep"], row["seed"]): row for row in rows_of(RESULTS)}


def note(row: dict[str, Any]) -> None:
    """Append a result in one write, so that runs side by side do not mix."""
    line = json.dumps(row | {"conditions": conditions()}) + "\n"
    handle = os.open(RESULTS, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(handle, line.encode())
    finally:
        os.close(handle)
    told = {name: value for name, value in row.items() if name not in ("trace", "protocol")}
    print(json.dumps(told), flush=True)


def run(subject: Subject, methods: list[str], budgets: list[float], seeds: list[int], scratch: Path) -> None:
    """Everything of one subject that is not done yet."""
    if (subject.name, "dense", 1.0, None) not in done():
        opened = subject.open()
        scores = subject.judge(opened.model.eval(), opened.tokenizer)
        note(
            {"subject": subject.name, "method": "dense", "keep": 1.0, "seed": None, "share": 1.0}
            | {"scores": scores, "protocol": subject.protocol | {"of": subject.of}}
        )
    for seed in seeds:
        missing = [
            (method, keep)
            for keep in budgets
            for method in methods
            if (subject.name, method, keep, seed) not in done()
        ]
        if not missing:
            continue
        opened = subject.open()
        samples = subject.draw(opened, subject.samples, seed)
        case = Case(subject, samples, seed, scratch)
        plain = forward_seconds(opened.model, samples.batches, repeats=1)
        for method, keep in missing:
            made = METHODS[method](case, keep)
            scores = subject.judge(made.model, opened.tokenizer)
            divergence = subject.diverge(opened.model.eval(), made.model, opened.tokenizer)
            note(
                {"subject": subject.name, "method": method, "keep": keep, "seed": seed}
                | {"share": made.share, "scores": scores, "seconds": made.seconds, "plain": plain}
                | {"tokens": samples.tokens, "trace": made.trace, "divergence": divergence}
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--finetuned", type=Path, help="folder of minilm-sst2, -mrpc, -stsb and -squad")
    parser.add_argument("--subject", action="append", help="only these")
    parser.add_argument("--method", action="append", choices=list(METHODS), help="only these")
    parser.add_argument("--keep", action="append", type=float, help="only these")
    parser.add_argument("--seed", action="append", type=int, help="only these")
    parser.add_argument("--model", action="append", default=[], help="a causal model of the hub, besides")
    parser.add_argument("--report", action="store_true", help="run nothing, write RESULTS.md")
    parser.add_argument("--scratch", type=Path, help="keep the measurements here")
    given = parser.parse_args()
    if not given.report:
        known = subjects(given.finetuned) | {
            name: (lambda name=name: decoder(name, name)) for name in given.model
        }
        asked = list(known) if given.subject is None else given.subject
        for name in asked:
            if name not in known:
                parser.error(f"no subject {name!r}; there are {', '.join(known)} (tasks with --finetuned).")
        made = [known[name]() for name in asked]
        keeps = {keep for subject in made for keep in subject.budgets}
        for keep in given.keep or []:
            if keep not in keeps:
                parser.error(f"no budget {keep:g}; there are {', '.join(map(str, sorted(keeps)))}.")
        with tempfile.TemporaryDirectory() as temporary:
            for subject in made:
                budgets = [keep for keep in subject.budgets if given.keep is None or keep in given.keep]
                methods, seeds = given.method or list(METHODS), given.seed or list(SEEDS)
                run(subject, methods, budgets, seeds, given.scratch or Path(temporary))
    write_report(list(done().values()))


if __name__ == "__main__":
    main()
