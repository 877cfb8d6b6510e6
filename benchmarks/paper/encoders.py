"""BERT-base and DistilBERT on six tasks of GLUE and both SQuADs, at 0.9 to 0.4 of their MACs.

    python -m benchmarks.paper.encoders                     # both models, all tasks, from the hub
    python -m benchmarks.paper.encoders --base distilbert-base-uncased --task glue/sst2 --device cuda
    python -m benchmarks.paper.encoders --task glue/mrpc=FOLDER --data glue/mrpc=FOLDER_OF_DATA --offline

A model is fine-tuned on its task. It is calibrated on 512 unlabelled examples of the task's training split,
drawn by seeds 0, 1 and 2, and judged on the whole validation split. Every result is a line of encoders.jsonl
as soon as it is there; a call does what is missing, then writes encoders.md. A model or data set that is not
there is told in one line, and the others go on. A folder goes by its name: give two models two names.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.paper.asking import asked_cases, asked_minutes, pairs, parser_of
from benchmarks.paper.cases import Case, Test, shown
from benchmarks.paper.page import SPREAD, matrix, protocols, versions, write
from benchmarks.paper.rows import Row, Rows, fill
from statprune.evaluation.tasks import task_named

KEEPS = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4)
SAMPLES = 512
BERT, DISTILBERT = "bert-base-uncased", "distilbert-base-uncased"
NAMES = {
    "glue/mnli-matched": "MNLI",
    "glue/qqp": "QQP",
    "glue/qnli": "QNLI",
    "glue/sst2": "SST-2",
    "glue/stsb": "STS-B",
    "glue/mrpc": "MRPC",
}
MODELS = {
    base: {task: f"textattack/{base}-{name}" for task, name in NAMES.items()} for base in (BERT, DISTILBERT)
}
MODELS[BERT] |= {
    "squad": "csarron/bert-base-uncased-squad-v1",
    "squad_v2": "deepset/bert-base-uncased-squad2",
}
MODELS[DISTILBERT] |= {
    "squad": "distilbert/distilbert-base-uncased-distilled-squad",
    "squad_v2": "twmkn9/distilbert-base-uncased-squad2",
}
"""Public models that were fine-tuned on the tasks, by base model."""

LABELS = {model["glue/mnli-matched"]: ("contradiction", "entailment", "neutral") for model in MODELS.values()}
"""Outputs of models whose config does not name them, where the order is not the task's."""


def main(given: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__, "encoders", KEEPS)
    parser.add_argument("--base", action="append", choices=list(MODELS), help="only these defaults")
    parser.add_argument(
        "--task",
        action="append",
        metavar="TASK[=MODEL]",
        help="only these; with a model, of a folder or name",
    )
    parser.add_argument(
        "--train",
        action="append",
        metavar="TASK=SOURCE",
        help="what is calibrated on; by default the split `train` of the data's folder, or of the hub",
    )
    parser.add_argument(
        "--labels",
        action="append",
        metavar="TASK=NAME,NAME",
        help="what a model's outputs are, in their order",
    )
    asked = parser.parse_args(given)
    rows = Rows(asked.out / "encoders.jsonl", asked_minutes(asked))
    if not asked.report:
        fill(rows, asked_cases(parser, cases, asked), asked.method, asked.keep, asked.seed)
    write_page(asked.out / "encoders.md", rows.all(), rows.failures)


def cases(asked: argparse.Namespace) -> list[Case]:
    """What is asked, task by task."""
    data, train, labels = pairs(asked.data), pairs(asked.train), pairs(asked.labels)
    limits = {task: int(limit) for task, limit in pairs(asked.limit).items()}
    made = []
    for task, model in models(asked.task, asked.base):
        entry = task_named(task)
        names = tuple(labels[task].split(",")) if task in labels else LABELS.get(model, ())
        source = train.get(task) or training_of(data.get(task), entry.hub)
        made.append(
            Case(
                model=model,
                of="macs",
                tests=(Test(task, data.get(task), limits.get(task)),),
                calibration=lambda source=source: source,
                calibrated_on=shown(source),
                columns=entry.columns,
                samples=asked.samples or SAMPLES,
                seq_len=asked.seq_len or entry.seq_len or 128,
                labels=names,
                device=asked.device,
                dtype=asked.dtype,
            )
        )
    return made


def models(asked: Sequence[str] | None, bases: Sequence[str] | None) -> list[tuple[str, str]]:
    """Task and model of everything that is asked: TASK=MODEL as it is, TASK of the default models."""
    made = []
    for one in asked or MODELS[BERT]:
        task, _, model = one.partition("=")
        chosen = [MODELS[base].get(task_named(task).name) for base in bases or MODELS]
        made += [(task, name) for name in ([model] if model else chosen) if name]
    return made


def training_of(data: str | None, hub: str) -> str:
    """The training split beside the one that judges: in its folder, or on the hub."""
    if data is None:
        return f"{hub.partition('@')[0]}@train"
    folder = data if Path(data).expanduser().exists() else data.rpartition("@")[0] or data
    return f"{folder}@train" if Path(folder).expanduser().is_dir() else folder


def write_page(path: Path, rows: Sequence[Row], failures: Sequence[str]) -> None:
    """Every table, from the rows that are there."""
    known = {model for models in MODELS.values() for model in models.values()}
    others = [row for row in rows if row["model"] not in known]
    keeps = sorted({*KEEPS, *(row["keep"] for row in rows if row["method"] != "dense")}, reverse=True)
    sections = [
        "# Encoders at shares of their MACs",
        "Made by `python -m benchmarks.paper.encoders`. Scores are the task's headline metric in points. "
        f"`ours` is method refit, `stat` is STAT as published. {SPREAD}",
    ]
    for base, models in MODELS.items():
        own = [row for row in rows if row["model"] in models.values()]
        expected = [(model, task) for task, model in models.items()]
        sections += [f"## {base}", matrix(own, keeps, expected)]
        if not own:
            sections.append("Not run yet: the models were not at hand.")
    if others:
        sections += ["## Other models", matrix(others, keeps, [])]
    sections += ["## Protocol", protocols(rows), versions(rows)]
    sections += (
        ["## Not run in the last call", "\n".join(f"- {line}" for line in failures)] if failures else []
    )
    write(path, sections)


if __name__ == "__main__":
    main()
