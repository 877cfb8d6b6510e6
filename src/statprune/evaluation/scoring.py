"""A task, prepared once and asked of many models.

prepared = prepare("glue/sst2", "validation.jsonl", tokenizer)
prepared.score(model).score             # the headline metric
"""

import time
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import torch

from statprune.calibration.tokens import require_tokenizer
from statprune.errors import DataError
from statprune.evaluation.batching import Told
from statprune.evaluation.classes import prepare_labelled
from statprune.evaluation.devices import place_of
from statprune.evaluation.last_word import prepare_last_words
from statprune.evaluation.spans import prepare_asked
from statprune.evaluation.task_data import rows_of, texts_of
from statprune.evaluation.tasks import Task, task_named
from statprune.evaluation.whole_text import prepare_whole_text

BATCH_TOKENS = 8192
LONGEST_DEFAULT = 2048


class Questions(Protocol):
    """What each kind of task makes of its data."""

    @property
    def examples(self) -> int:
        """How many are asked."""

    @property
    def truncated(self) -> int:
        """How many of them are not read whole."""

    @property
    def skipped(self) -> int:
        """How many records are not asked."""

    @property
    def protocol(self) -> dict[str, Any]:
        """What of the task determines the number."""

    @property
    def notes(self) -> list[str]:
        """What the user should know, one sentence each."""

    def check(self, model: Any) -> dict[str, Any]:
        """How the model is read; raises where it does not fit."""

    def measure(self, model: Any, batch_tokens: int, told: Told | None) -> tuple[dict[str, float], list[str]]:
        """The metrics, and what the user should know about them."""


@dataclass(frozen=True)
class TaskResult:
    """How well a model does on a task.

    Attributes:
        task: The task's name.
        metric: The headline metric's name.
        score: Its value: of a perplexity the perplexity itself; of every other metric points, 0 to 100 (of
            correlations -100 to 100).
        higher_is_better: Whether a larger score is a better one.
        metrics: Every metric of the task by name, the headline among them.
        examples: Examples asked; of a perplexity windows.
        truncated: How many of these the model reads without a part of them.
        skipped: Records that were left out; the protocol says by what rule.
        protocol: All that two numbers must share to be comparable, ready for JSON.
        notes: What the user should know, one sentence each.
        seconds: Wall-clock time of asking the model, without preparation.
    """

    task: str
    metric: str
    score: float
    higher_is_better: bool
    metrics: dict[str, float]
    examples: int
    truncated: int
    skipped: int
    protocol: dict[str, Any]
    notes: tuple[str, ...] = ()
    seconds: float = field(default=0.0, compare=False)

    def headline(self) -> str:
        """The numbers, in one line."""
        named = {"matthews": "Matthews correlation", "spearman": "Spearman", "pearson": "Pearson", "f1": "F1"}
        told = ", ".join(
            f"{named.get(name, name.replace('_', ' '))} {value:.4f}" for name, value in self.metrics.items()
        )
        left_out = f", {self.truncated} truncated, {self.skipped} skipped"
        return f"{self.task}: {told} ({self.examples} examples{left_out}, {self.seconds:.1f} s)"

    def to_json(self) -> dict[str, Any]:
        """The attributes as a mapping that `json.dumps` takes."""
        return asdict(self) | {"notes": list(self.notes)}


@dataclass(frozen=True, eq=False)
class Prepared:
    """A task's data, tokenised for the models that share a tokenizer.

    Attributes:
        task: Its entry.
        questions: What is asked.
        protocol: What the data and the tokenizer determine of a result.
    """

    task: Task
    questions: Questions
    protocol: dict[str, Any]

    def check(self, model: Any) -> dict[str, Any]:
        """How the model is read; cheap, for use before an expensive pass.

        Raises:
            ModelError: The model's head or labels do not fit the task.
            DataError: The model cannot read examples so long, or such ids.
        """
        return self.questions.check(model)

    def score(self, model: Any, *, batch_tokens: int = BATCH_TOKENS, told: Told | None = None) -> TaskResult:
        """Ask a model, wherever it lies; its mode is put back afterwards.

        Args:
            model: Any Hugging Face model with the task's head; its blocks may have any widths.
            batch_tokens: Tokens in a batch with padding, at most, unless one example is longer.
            told: Called after every batch with the examples done, and all of them.

        Raises:
            ModelError: The model's head or labels do not fit the task.
            DataError: The model cannot read examples so long, or such ids.
            NonFiniteError: What the model says is NaN or infinite.
        """
        read_as = self.check(model)
        began = time.perf_counter()
        metrics, notes = self.questions.measure(model, batch_tokens, told)
        seconds = time.perf_counter() - began
        device, dtype = place_of(model)
        place = {"dtype": str(dtype).removeprefix("torch."), "device": device.type}
        ordered = {name: metrics[name] for name in self.task.metrics if name in metrics}
        return TaskResult(
            task=self.task.name,
            metric=self.task.metrics[0],
            score=ordered[self.task.metrics[0]],
            higher_is_better=self.task.higher_is_better,
            metrics=ordered,
            examples=self.questions.examples,
            truncated=self.questions.truncated,
            skipped=self.questions.skipped,
            protocol=self.protocol | read_as | place,
            notes=(*self.questions.notes, *notes),
            seconds=seconds,
        )


def prepare(
    task: str | Task,
    data: Any,
    tokenizer: Any,
    seq_len: int | None = None,
    max_examples: int | None = None,
    seed: int = 0,
) -> Prepared:
    """Read and tokenise a task's data, once for all models that share the tokenizer.

    Args:
        task: The name of an entry, or an entry of your own.
        data: A SOURCE (`NAME[:CONFIG][@SPLIT]` on the hub, or a local file or folder), records in memory, or
            None for the entry's own on the hub.
        tokenizer: The models'.
        seq_len: Tokens of an example, or of a window, at most; by default the entry's, or 2048, where the
            tokenizer's `model_max_length` allows.
        max_examples: Ask no more than these, drawn without replacement by the seed and asked in their order;
            of a perplexity read the first windows.
        seed: Draws them.

    Raises:
        InputError: There is no such task.
        DataError: The data cannot be read, is empty, or lacks a column, label or text.
    """
    task = task_named(task)
    if max_examples is not None and max_examples < 1:
        raise DataError(f"max_examples is {max_examples}; give at least 1, or None for all.")
    require_tokenizer(tokenizer, task.name)
    longest = getattr(tokenizer, "model_max_length", None) or LONGEST_DEFAULT
    length = seq_len if seq_len is not None else min(task.seq_len or LONGEST_DEFAULT, longest)
    if task.kind == "perplexity":
        records = texts_of(task, data, tokenizer)
        questions: Questions = prepare_whole_text(task, records, tokenizer, length, max_examples)
        whole, description = len(records.texts), records.description
        drawn = f"the first {questions.examples} windows"
    else:
        questions, whole, description = _drawn(task, data, tokenizer, length, max_examples, seed)
        asked = questions.examples + questions.skipped
        drawn = f"all {whole}" if asked == whole else f"{asked} of {whole}, drawn by seed {seed}"
    protocol = {
        "task": task.name,
        "data": description,
        "split": description.get("split"),
        "examples": drawn,
        "seq_len": length,
        "truncated": questions.truncated,
        "skipped": questions.skipped,
        **questions.protocol,
    }
    return Prepared(task, questions, protocol)


def score(
    model: Any,
    tokenizer: Any,
    task: str | Task,
    data: Any = None,
    *,
    seq_len: int | None = None,
    max_examples: int | None = None,
    seed: int = 0,
) -> TaskResult:
    """`prepare`, and `Prepared.score`, of one model; raises what they do."""
    return prepare(task, data, tokenizer, seq_len, max_examples, seed).score(model)


def _drawn(
    task: Task, data: Any, tokenizer: Any, seq_len: int, max_examples: int | None, seed: int
) -> tuple[Questions, int, dict[str, Any]]:
    """What is asked, out of how many records, and where they came from."""
    if task.kind == "last word":
        records = texts_of(task, data, tokenizer)
        texts = [records.texts[number] for number in _numbers(len(records.texts), max_examples, seed)]
        source = str(records.description["source"])
        words = prepare_last_words(task, texts, tokenizer, seq_len, source)
        return words, len(records.texts), records.description
    found = rows_of(task, data)
    rows = [found.rows[number] for number in _numbers(len(found.rows), max_examples, seed)]
    source = str(found.description["source"])
    if task.kind == "spans":
        questions: Questions = prepare_asked(task, rows, tokenizer, seq_len, source)
    else:
        questions = prepare_labelled(task, rows, tokenizer, seq_len, source)
    return questions, len(found.rows), found.description


def _numbers(count: int, most: int | None, seed: int) -> list[int]:
    """All numbers below `count`, or `most` of them, drawn and in their order."""
    drawn = torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:most]
    return sorted(drawn.tolist())
