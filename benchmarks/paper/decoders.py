r"""Llama-2-7B, or any causal model, on WikiText-2 and C4 at 0.9 to 0.5 of its block parameters.

    python -m benchmarks.paper.decoders --device cuda          # meta-llama/Llama-2-7b-hf, from the hub
    python -m benchmarks.paper.decoders --model FOLDER --seq-len 256 --task wikitext2 c4 --offline \
        --data wikitext2=wiki.test.raw --data c4=c4.txt --calibration articles.jsonl.xz --limit c4=38400

A model is calibrated on 128 windows of C4 (train), drawn by seeds 0, 1 and 2, as the released scripts do for
OPT, and judged by the perplexity of the whole WikiText-2 test split in windows of 2,048 tokens. Every result
is a line of decoders.jsonl as soon as it is there; a call does what is missing, then writes decoders.md. A
model or data set that is not there is told in one line, and the others go on.
"""

import argparse
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.paper.asking import asked_cases, asked_minutes, pairs, parser_of
from benchmarks.paper.cases import Case, Test, shown
from benchmarks.paper.page import SPREAD, matrix, protocols, versions, write
from benchmarks.paper.rows import Row, Rows, fill
from benchmarks.protocol import articles

LLAMA = "meta-llama/Llama-2-7b-hf"
KEEPS = (0.9, 0.8, 0.7, 0.6, 0.5)
SAMPLES = 128
SEQ_LEN = 2048
CALIBRATION = "allenai/c4:en@train"
CHARACTERS = 5_000_000


def main(given: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__, "decoders", KEEPS)
    parser.add_argument("--model", action="append", help=f"a folder, or a name on the hub; else {LLAMA}")
    parser.add_argument("--task", nargs="+", choices=("wikitext2", "c4", "ptb"), default=["wikitext2"])
    parser.add_argument("--calibration", default=CALIBRATION, metavar="SOURCE", help=f"else {CALIBRATION}")
    parser.add_argument(
        "--without",
        type=Path,
        metavar="FILE",
        help="titles that are left out of a calibration file of articles, {title, text} a line, .jsonl.xz",
    )
    asked = parser.parse_args(given)
    rows = Rows(asked.out / "decoders.jsonl", asked_minutes(asked))
    if not asked.report:
        fill(rows, asked_cases(parser, cases, asked), asked.method, asked.keep, asked.seed)
    write_page(asked.out / "decoders.md", rows.all(), rows.failures)


def cases(asked: argparse.Namespace) -> list[Case]:
    """What is asked, model by model."""
    data = pairs(asked.data)
    limits = {task: int(limit) for task, limit in pairs(asked.limit).items()}
    named = shown(asked.calibration) + (f" without {asked.without.name}" if asked.without else "")
    return [
        Case(
            model=model,
            of="params",
            tests=tuple(Test(task, data.get(task), limits.get(task)) for task in asked.task),
            calibration=lambda: calibration(asked.calibration, asked.without),
            calibrated_on=named,
            columns=None,
            samples=asked.samples or SAMPLES,
            seq_len=asked.seq_len or SEQ_LEN,
            device=asked.device,
            dtype=asked.dtype,
        )
        for model in asked.model or [LLAMA]
    ]


@cache
def calibration(source: str, without: Path | None) -> Any:
    """The SOURCE; or, without some titles, its first articles, as benchmarks.quality reads it."""
    if without is None:
        return source
    return articles(Path(source), without.read_text(encoding="utf-8").splitlines(), CHARACTERS)


def write_page(path: Path, rows: Sequence[Row], failures: Sequence[str]) -> None:
    """The tables, from the rows that are there."""
    keeps = sorted({*KEEPS, *(row["keep"] for row in rows if row["method"] != "dense")}, reverse=True)
    own = [row for row in rows if row["model"] == LLAMA]
    others = [row for row in rows if row["model"] != LLAMA]
    sections = [
        "# Decoders at shares of their block parameters",
        "Made by `python -m benchmarks.paper.decoders`. Scores are perplexities. `ours` is method refit, "
        f"`stat` is STAT as published. {SPREAD}",
        "## Llama-2-7B",
        matrix(own, keeps, [(LLAMA, "wikitext2"), (LLAMA, "c4")]),
        "" if own else "Not run yet: the model was not at hand.",
    ]
    sections += ["## Other models", matrix(others, keeps, [])] if others else []
    sections += ["## Protocol", protocols(rows), versions(rows)]
    sections += (
        ["## Not run in the last call", "\n".join(f"- {line}" for line in failures)] if failures else []
    )
    write(path, sections)


if __name__ == "__main__":
    main()
