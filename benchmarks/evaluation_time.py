"""How long an evaluation takes, and how much of that is the model's own forward passes.

    python -m benchmarks.evaluation_time --encoder glue/mrpc=minilm-mrpc --encoder squad=minilm-squad

The decoders are those below $STATPRUNE_SHARED, on WikiText-2 and C4; encoders are given as TASK=FOLDER and
read their data there too. Run it where nothing else computes.
"""

import argparse
from pathlib import Path
from time import perf_counter
from typing import Any

from transformers import (
    AutoModelForCausalLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

import statprune
from benchmarks.protocol import shared, table, write
from statprune.cli.show import quieten_libraries
from statprune.evaluation.tasks import task_named

DATA = {
    "glue/mrpc": "data/glue/mrpc",
    "glue/sst2": "data/glue/sst2",
    "glue/stsb": "data/glue/stsb",
    "squad": "data/squad",
    "wikitext2": "data/wikitext-2/wiki.test.raw",
    "c4": "data/c4/c4.txt",
}
SPLITS = {"glue/stsb": "@test"}
OPENERS = {
    "classes": AutoModelForSequenceClassification,
    "score": AutoModelForSequenceClassification,
    "spans": AutoModelForQuestionAnswering,
}
COLUMNS = ("model", "task", "examples", "seconds", "forward passes", "over them", "examples a second")


class Passes:
    """Seconds inside a model's forward."""

    def __init__(self, model: Any) -> None:
        self.seconds, self._began = 0.0, 0.0
        model.register_forward_pre_hook(self._before)
        model.register_forward_hook(self._after)

    def _before(self, *_: Any) -> None:
        self._began = perf_counter()

    def _after(self, *_: Any) -> None:
        self.seconds += perf_counter() - self._began


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoder", action="append", default=[], metavar="TASK=FOLDER")
    parser.add_argument("--decoder", action="append", default=[], type=Path, metavar="FOLDER")
    asked = parser.parse_args()
    quieten_libraries()
    decoders = asked.decoder or [shared(f"models/{name}") for name in ("stories260K", "wiki-llama-7m")]
    cases = [(task, Path(folder)) for task, _, folder in (each.partition("=") for each in asked.encoder)]
    cases += [(task, folder) for folder in decoders for task in ("wikitext2", "c4")]
    rows = [timed(task, folder) for task, folder in cases]
    told = [
        [
            row["model"],
            row["task"],
            f"{row['examples']:,}",
            f"{row['seconds']:.1f}",
            f"{row['forward']:.1f}",
            f"{row['seconds'] / row['forward']:.2f}",
            f"{row['examples'] / row['seconds']:.1f}",
        ]
        for row in rows
    ]
    protocol = {
        "time": "wall time of statprune.evaluate, the model in memory: reading, tokenising, passes, scores",
        "examples": "all of the test set; of texts windows of at most 512 tokens, the models' context",
    }
    write("evaluation-time", "How long an evaluation takes", protocol, table(COLUMNS, told), rows)


def timed(task: str, folder: Path) -> dict[str, Any]:
    """One evaluation."""
    model = OPENERS.get(task_named(task).kind, AutoModelForCausalLM).from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    passes = Passes(model)
    began = perf_counter()
    data = f"{shared(DATA[task])}{SPLITS.get(task, '')}"
    found = statprune.evaluate(model, task=task, data=data, tokenizer=tokenizer)
    seconds = perf_counter() - began
    row = {"model": folder.name, "task": task, "examples": found.examples, "score": found.score}
    print(row | {"seconds": seconds, "forward": passes.seconds}, flush=True)
    return row | {"seconds": seconds, "forward": passes.seconds}


if __name__ == "__main__":
    main()
