"""Classes and scores of one or two texts: GLUE."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef
from torch import Tensor

from statprune.calibration.tokens import encode
from statprune.errors import DataError
from statprune.evaluation.batching import Example, Told, outputs, padding_of, require_room
from statprune.evaluation.heads import require_head
from statprune.evaluation.labels import counted, label_of, names_of, order_of
from statprune.evaluation.tasks import Task


@dataclass(frozen=True, eq=False)
class Labelled:
    """Tokenised texts with their labels.

    Attributes:
        task: What they are of.
        inputs: What a model reads, an entry an example.
        labels: The label's number, or the score, of each.
        truncated: How many are cut to the longest length.
        skipped: How many have no label, and are left out.
        padding: The tokenizer's token for padding.
    """

    task: Task
    inputs: list[Example]
    labels: list[float]
    truncated: int
    skipped: int
    padding: int

    @property
    def examples(self) -> int:
        """How many are asked."""
        return len(self.inputs)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row that a model reads."""
        return [len(each.ids) for each in self.inputs]

    @property
    def protocol(self) -> dict[str, Any]:
        """What of the task determines the number."""
        found = counted(self.labels, self.task)
        return {"labels found": found} if found else {}

    @property
    def notes(self) -> list[str]:
        """What the user should know."""
        found = counted(self.labels, self.task)
        missing = [name for name, count in found.items() if not count]
        if not missing:
            return []
        return [
            f"of {len(found)} labels {', '.join(missing)} never occurs in these {self.examples} examples: "
            f"the metrics are those of the others"
        ]

    def check(self, model: Any) -> dict[str, Any]:
        """How the model's labels are read.

        Raises:
            ModelError: The model has no such head, or other labels.
            DataError: It cannot read the examples.
        """
        require_head(model, self.task)
        require_room(model, self.inputs)
        return {"labels": names_of(model), "labels matched": order_of(model, self.task)[1]}

    def measure(self, model: Any, batch_tokens: int, told: Told | None) -> tuple[dict[str, float], list[str]]:
        """The task's metrics, in points, and what the user should know about them."""
        order, _ = order_of(model, self.task)
        # Without a padding token of its own, a decoder's head does not know where a padded text ends.
        alone = padding_of(model) is None
        found = torch.stack(
            outputs(
                model,
                self.inputs,
                _logits,
                batch_tokens=1 if alone else batch_tokens,
                padding=self.padding,
                told=told,
            )
        ).double()
        if self.task.kind == "score":
            return _correlations(found[:, 0].numpy(), np.array(self.labels))
        predicted = np.array(order)[found.argmax(1).numpy()]
        return _agreement(predicted, np.array(self.labels).astype(int), self.task.metrics), []


def prepare_labelled(
    task: Task, rows: list[dict[str, Any]], tokenizer: Any, seq_len: int, source: str
) -> Labelled:
    """Rows with the task's columns -> what a model reads of them.

    Raises:
        DataError: A text or a label cannot be used, or no row has a label.
    """
    places = [f"{source}, record {row['#']}" for row in rows]
    labels = [label_of(row[task.label], task, place) for row, place in zip(rows, places, strict=True)]
    kept = [(row, label) for row, label in zip(rows, labels, strict=True) if label is not None]
    # A score may be -1; where all are, they are withheld.
    if all(task.kind == "score" and label == -1 for _, label in kept):
        raise DataError(
            f"{source}: none of {len(rows)} records has a label in column {task.label!r} (the tests of GLUE "
            f"withhold theirs); take a split with labels, such as {task.hub.partition('@')[2]}"
        )
    texts = [tuple(row[name] for name in task.columns) for row, _ in kept]
    made = tokenizer(*map(list, zip(*texts, strict=True)), return_attention_mask=False, verbose=False)
    types = made.get("token_type_ids") or [None] * len(texts)
    inputs = [Example(ids, kind) for ids, kind in zip(made["input_ids"], types, strict=True)]
    truncated = 0
    for number, example in enumerate(inputs):
        if not example.ids:
            raise DataError(
                f"{source}, record {kept[number][0]['#']}: no token in {texts[number]!r}, and this tokenizer "
                f"adds none; drop the record"
            )
        if len(example.ids) > seq_len:
            row = encode(texts[number] if len(task.columns) == 2 else texts[number][0], tokenizer, seq_len)
            inputs[number] = Example(row.ids, row.types)
            truncated += 1
    padding = getattr(tokenizer, "pad_token_id", None) or 0
    return Labelled(task, inputs, [label for _, label in kept], truncated, len(rows) - len(kept), padding)


def _logits(output: Any, _: list[int]) -> list[Tensor]:
    return list(output.logits.float())


def _agreement(predicted: Any, labels: Any, metrics: tuple[str, ...]) -> dict[str, float]:
    """Metrics of classes, in points; F1 is that of class 1."""
    every = {
        "accuracy": lambda: accuracy_score(labels, predicted),
        "f1": lambda: f1_score(labels, predicted, labels=[1], average="macro", zero_division=0),
        "matthews": lambda: matthews_corrcoef(labels, predicted),
    }
    return {name: 100 * float(every[name]()) for name in metrics}


def _correlations(predicted: Any, labels: Any) -> tuple[dict[str, float], list[str]]:
    """Correlations in points; nothing where one side is constant, which is said."""
    # Differences of rounding alone, as between rows of a batch, would give correlations of any size.
    alike = [
        name
        for name, values in (("predictions", predicted), ("labels", labels))
        if np.ptp(values) <= 1e-6 * np.abs(values).max()
    ]
    if alike:
        note = f"all {' and all '.join(alike)} are the same: correlations are not defined, 0 is given"
        return {"spearman": 0.0, "pearson": 0.0, "mean": 0.0}, [note]
    spearman = 100 * float(spearmanr(predicted, labels).statistic)
    pearson = 100 * float(pearsonr(predicted, labels).statistic)
    return {"spearman": spearman, "pearson": pearson, "mean": (spearman + pearson) / 2}, []
