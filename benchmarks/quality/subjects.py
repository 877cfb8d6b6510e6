"""The models that the matrix is run on: what each is calibrated on, and how it is judged."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import log
from pathlib import Path
from typing import Any, Literal

import torch

from benchmarks.protocol import articles, minilm, shared
from benchmarks.quality.divergence import RECORDS, Diverge, between_records, between_texts
from benchmarks.quality.tasks import Task, load
from statprune.calibration.records import from_memory
from statprune.calibration.samples import Samples, sentences, windows
from statprune.evaluation.perplexity import Perplexity
from statprune.inputs import Opened, open_model
from statprune.quality import evaluate

SEQ_LEN = 256
TOKENS = 38_400
TEXTS = {"WikiText-2": "data/wikitext-2/wiki.test.raw", "C4": "data/c4/c4.txt"}
WIKIPEDIA = "data/wikipedia/AE.jsonl.xz"
CHARACTERS = 5_000_000
DIVERGENCE_WINDOWS = 64


@dataclass(frozen=True)
class Subject:
    """A model and its data.

    Attributes:
        name: as the table has it.
        folder: where the model lies, or its name on the hub.
        of: what its budgets count.
        budgets: shares to keep.
        samples: calibration samples.
        draw: (opened model, samples, seed) -> calibration samples.
        judge: (model, tokenizer) -> score by name.
        damage: (dense score, score) -> damage.
        diverge: how far a narrowed model's outputs are from the dense one's, by the name of the data.
    """

    name: str
    folder: Path | str
    of: Literal["params", "macs"]
    budgets: tuple[float, ...]
    samples: int
    draw: Callable[[Opened, int, int], Samples]
    judge: Callable[[Any, Any], dict[str, float]]
    damage: Callable[[float, float], float]
    diverge: Diverge
    protocol: dict[str, Any]

    def open(self) -> Opened:
        """The dense model, anew."""
        return open_model(self.folder, device="cpu")


def decoder(name: str, folder: Path | str) -> Subject:
    """A causal model: calibrated on Wikipedia, judged by the perplexity of WikiText-2 and C4."""
    return Subject(
        name=name,
        folder=folder,
        of="params",
        budgets=(0.875, 0.75, 0.625, 0.5),
        samples=128,
        draw=_windows,
        judge=_perplexities,
        damage=lambda dense, found: log(found / dense),
        diverge=_of_texts,
        protocol={
            "calibration": f"128 windows of {SEQ_LEN} tokens of English Wikipedia of 2014, part AE, without "
            "articles that WikiText holds",
            "test": f"the first {TOKENS} tokens of WikiText-2 test and of a C4 sample, windows of {SEQ_LEN}",
            "damage": "ln(perplexity / dense perplexity)",
            "divergence": f"of the next token, {DIVERGENCE_WINDOWS} windows of {SEQ_LEN} tokens of each "
            "text, drawn by seed 0",
        },
    )


def encoder(task: str, folder: Path | str) -> Subject:
    """An encoder on one task: calibrated on its training records without labels, judged by its metric."""
    loaded = _task(task)
    return Subject(
        name=f"MiniLM {task}",
        folder=folder,
        of="macs",
        budgets=(0.7, 0.6, 0.5, 0.4),
        samples=512,
        draw=lambda opened, samples, seed: sentences(
            from_memory(loaded.train, text_column=None, tokenizer=opened.tokenizer),
            opened.tokenizer,
            samples=samples,
            seq_len=loaded.seq_len,
            generator=torch.Generator().manual_seed(seed),
        ),
        judge=loaded.details,
        damage=lambda dense, found: dense - found,
        diverge=_of_records(loaded),
        protocol={
            "calibration": "512 training records without labels",
            "damage": "points of the metric lost",
            **loaded.protocol,
            "divergence": f"{RECORDS} of the test records, drawn by seed 0",
        },
    )


def subjects(finetuned: Path | None) -> dict[str, Callable[[], Subject]]:
    """All subjects by name; encoders fine-tuned by benchmarks/finetune.py lie in `finetuned`/minilm-TASK."""
    found: dict[str, Callable[[], Subject]] = {
        "wiki-llama-7m": lambda: decoder("wiki-llama-7m", shared("models/wiki-llama-7m")),
        "stories260K": lambda: decoder("stories260K", shared("models/stories260K")),
        "stsb-cosine": lambda: encoder("stsb-cosine", minilm()),
    }
    if finetuned is not None:
        for task in ("sst2", "mrpc", "stsb", "squad"):
            found[task] = lambda task=task: encoder(task, finetuned / f"minilm-{task}")
    return found


@cache
def _wikipedia() -> tuple[str, ...]:
    excluded = shared("data/wikipedia/exclude_titles.txt").read_text(encoding="utf-8").splitlines()
    return tuple(articles(shared(WIKIPEDIA), excluded, CHARACTERS))


@cache
def _task(name: str) -> Task:
    return load(name, shared("data"))


def _windows(opened: Opened, samples: int, seed: int) -> Samples:
    records = from_memory(list(_wikipedia()), text_column=None, tokenizer=opened.tokenizer)
    generator = torch.Generator().manual_seed(seed)
    return windows(records, opened.tokenizer, samples=samples, seq_len=SEQ_LEN, generator=generator)


def _perplexities(model: Any, tokenizer: Any) -> dict[str, float]:
    found = {}
    for name, path in TEXTS.items():
        measured = evaluate(
            model, data=str(shared(path)), tokenizer=tokenizer, seq_len=SEQ_LEN, max_tokens=TOKENS
        )
        if isinstance(measured, Perplexity):
            found[name] = measured.perplexity
    return found


def _of_texts(dense: Any, model: Any, tokenizer: Any) -> dict[str, float]:
    return {name: between_texts(dense, model, _held_out(name, tokenizer).batches) for name in TEXTS}


def _held_out(name: str, tokenizer: Any) -> Samples:
    records = from_memory(
        [shared(TEXTS[name]).read_text(encoding="utf-8")], text_column=None, tokenizer=tokenizer
    )
    generator = torch.Generator().manual_seed(0)
    return windows(records, tokenizer, samples=DIVERGENCE_WINDOWS, seq_len=SEQ_LEN, generator=generator)


def _of_records(task: Task) -> Diverge:
    if task.name == "stsb-cosine":  # its outputs are embeddings
        return lambda *_: {}
    return lambda dense, model, tokenizer: {task.name: between_records(task, dense, model, tokenizer)}
