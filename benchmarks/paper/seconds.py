"""Time to compress, stage by stage, beside one plain forward pass over the same calibration examples.

    python -m benchmarks.paper.seconds --device cuda        # BERT-base on SST-2 and Llama-2-7B, from the hub
    python -m benchmarks.paper.seconds --decoder FOLDER --seq-len 256 --calibration c4.txt --offline
    python -m benchmarks.paper.seconds --encoder glue/mrpc=FOLDER --data glue/mrpc=FOLDER_OF_DATA --offline

One run of each method at one share, 0.5 unless --keep says else, without loading, saving and judging.
The measurement that method refit starts from is made anew, and counted. Every run is a line of seconds.jsonl,
and seconds.md the table. Run it where nothing else computes; the page says with how many threads, on what.
"""

import argparse
import platform
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.paper import decoders, encoders
from benchmarks.paper.asking import asked_cases, asked_minutes, parser_of
from benchmarks.paper.cases import Case, narrowed
from benchmarks.paper.page import figures, versions, write
from benchmarks.paper.rows import OutOfTimeError, Row, Rows
from benchmarks.protocol import forward_seconds, table
from statprune.anatomy.lookup import anatomy_of
from statprune.errors import DataError, InputError
from statprune.recipe import Recipe
from statprune.sampling import samples_of

ENCODER = f"glue/sst2={encoders.MODELS[encoders.BERT]['glue/sst2']}"


def main(given: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__, "seconds", [0.5])
    parser.set_defaults(seed=[0])
    parser.add_argument("--encoder", action="append", metavar="TASK=MODEL")
    parser.add_argument("--decoder", action="append", metavar="MODEL")
    parser.add_argument("--calibration", default=decoders.CALIBRATION, metavar="SOURCE", help="of decoders")
    parser.add_argument("--without", type=Path, metavar="FILE", help="as benchmarks.paper.decoders takes it")
    parser.add_argument("--train", action="append", metavar="TASK=SOURCE", help="of encoders")
    parser.add_argument("--note", default="", help="what else the machine did; stands beside the times")
    asked = parser.parse_args(given)
    rows = Rows(asked.out / "seconds.jsonl", asked_minutes(asked))
    try:
        for case in [] if asked.report else asked_cases(parser, cases, asked):
            _fill(rows, case, asked)
    except OutOfTimeError:
        print(f"{rows.minutes:g} minutes are over; call again for what is left.", flush=True)
    write_page(asked.out / "seconds.md", rows.all(), rows.failures)


def cases(asked: argparse.Namespace) -> list[Case]:
    """The models that are asked; where none is, BERT-base on SST-2 and Llama-2-7B."""
    some = asked.encoder or asked.decoder
    of_tasks = argparse.Namespace(
        **vars(asked), task=asked.encoder or ([] if some else [ENCODER]), base=None, labels=None
    )
    causal = asked.decoder or ([] if some else [decoders.LLAMA])
    of_texts = argparse.Namespace(**vars(asked), model=causal, task=["wikitext2"])
    made = encoders.cases(of_tasks) if of_tasks.task else []
    return made + (decoders.cases(of_texts) if causal else [])


def _fill(rows: Rows, case: Case, asked: argparse.Namespace) -> None:
    """What is missing of one case."""
    wanted = [
        (seed, keep, method)
        for seed in asked.seed
        for keep in asked.keep
        for method in asked.method
        if rows.lacks(case.identity(case.tests[0], method, keep, seed))
    ]
    try:
        for seed, keep, method in wanted:
            rows.require_time()
            plain, tokens = forward(case, seed)
            with tempfile.TemporaryDirectory() as folder:
                made = narrowed(case, method, keep, seed, Path(folder))
            whole = made.seconds.get("measure", 0.0) + made.seconds["compress"]
            facts = {"plain": plain, "tokens": tokens, "seconds": made.seconds, "share": made.share}
            where = {"threads": torch.get_num_threads(), "machine": machine(made.model), "note": asked.note}
            identity = case.identity(case.tests[0], method, keep, seed)
            rows.add(identity | {"score": whole} | facts | where)
    except InputError as error:
        rows.fail(case.name, error)


def forward(case: Case, seed: int) -> tuple[float, int]:
    """Seconds of one plain pass over the calibration samples, and their tokens.

    Raises:
        InputError: model or data cannot be used.
    """
    opened = case.open()
    if opened.tokenizer is None:
        raise DataError(f"{case.name} has no tokenizer beside it; complete the folder.")
    recipe = Recipe(keep=0.5, **case.options(seed))
    samples = samples_of(opened, anatomy_of(opened.model), recipe, case.calibration(), case.seq_len)
    device = opened.model.device
    batches = [{name: value.to(device) for name, value in batch.items()} for batch in samples.batches]
    return forward_seconds(opened.model, batches, repeats=1), samples.tokens


def machine(model: Any) -> str:
    """The device that the model lies on, in words."""
    if model.device.type == "cuda":
        return torch.cuda.get_device_name(model.device)
    return processor() or platform.machine()


def processor() -> str:
    """The processor's name, where the system tells it."""
    path = Path("/proc/cpuinfo")
    found = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    named = [line.partition(":")[2].strip() for line in found if line.startswith("model name")]
    return named[0] if named else ""


def write_page(path: Path, rows: Sequence[Row], failures: Sequence[str]) -> None:
    """The table, from the rows that are there."""
    told = []
    for row in rows:
        parts = row["seconds"]
        stages = ", ".join(
            f"{name.removeprefix('of which ')} {took:.1f}"
            for name, took in parts.items()
            if name == "measure" or name.startswith("of which")
        )
        told.append(
            [
                *(row["model"], row["method"], f"{row['keep']:g} of {row['of']}", f"{row['tokens']:,}"),
                *(f"{row['plain']:.1f} s", f"{row['score']:.1f} s", f"{row['score'] / row['plain']:.1f}"),
                *(
                    stages,
                    ", ".join(filter(None, (row["machine"], f"threads {row['threads']}", row["note"]))),
                ),
            ]
        )
    for name, like in (("BERT-base", "BERT"), ("Llama-2-7B", "7B")):
        for one in figures("seconds"):
            if one["model"] == like:
                told.append([name, one["who"], "", "", "", one["told"], "", "", one["source"]])
    head = ["model", "method", "keep", "tokens", "forward", "run", "over forward", "stages, s", "where"]
    sections = [
        "# Time to compress",
        "Made by `python -m benchmarks.paper.seconds`. A run reads the data, measures, chooses, narrows and "
        "corrects; the model is in memory before, and is not saved. `forward` is one plain pass over the "
        "same examples.",
        table(head, told),
        versions(rows),
    ]
    sections += ["Not run in the last call:", "\n".join(f"- {line}" for line in failures)] if failures else []
    write(path, sections)


if __name__ == "__main__":
    main()
