"""Answers that stand in a context: windows of long contexts, the n best spans, and no answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from statprune.errors import DataError
from statprune.evaluation.batching import Example, Told, outputs, require_room
from statprune.evaluation.heads import require_head
from statprune.evaluation.squad import squad_v1, squad_v2
from statprune.evaluation.tasks import Task

N_BEST = 20
LONGEST_ANSWER = 30
NULL_THRESHOLD = 0.0


class Window(NamedTuple):
    """A question and a part of its context.

    Attributes:
        example: What the model reads.
        question: The number of the question.
        spans: Characters of the context that each token stands for; None for tokens outside of it.
        null: The place whose logits speak for no answer.
    """

    example: Example
    question: int
    spans: list[tuple[int, int] | None]
    null: int


class Answer(NamedTuple):
    """A span's characters in the context, and its start + end logit."""

    begin: int
    end: int
    score: float


@dataclass(frozen=True, eq=False)
class Asked:
    """Questions, the windows of their contexts, and the right answers.

    Attributes:
        task: What they are of.
        windows: What a model reads.
        contexts: Of each question.
        golds: The right answers, by the question's id; none where there is none.
        truncated: Questions that are cut to leave room for the context.
        skipped: Always 0: every question is asked.
        stride: Tokens that two windows of a context share.
        padding: The tokenizer's token for padding.
    """

    task: Task
    windows: list[Window]
    contexts: list[str]
    golds: dict[str, list[str]]
    truncated: int
    skipped: int
    stride: int
    padding: int

    @property
    def examples(self) -> int:
        """How many questions are asked."""
        return len(self.contexts)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row that a model reads."""
        return [len(window.example.ids) for window in self.windows]

    @property
    def protocol(self) -> dict[str, Any]:
        """What of the task determines the number."""
        told: dict[str, Any] = {
            "windows": len(self.windows),
            "stride": f"windows of a context share {self.stride} tokens",
            "answer": f"the best of the {N_BEST} best starts and ends of each window, at most "
            f"{LONGEST_ANSWER} tokens long",
            "scorer": "SQuAD v2.0" if self.task.no_answer else "SQuAD v1.1",
        }
        if self.task.no_answer:
            told["no answer"] = (
                f"where the least null score of the windows exceeds the best span's by more than "
                f"{NULL_THRESHOLD}; best_ are of the best span, by that difference"
            )
            told["without answer"] = sum(not answers for answers in self.golds.values())
        return told

    @property
    def notes(self) -> list[str]:
        """What the user should know."""
        if not self.task.no_answer:
            return []
        without = sum(not answers for answers in self.golds.values())
        if without in (0, self.examples):
            which = "every question has" if without == 0 else "no question has"
            return [f"{which} an answer among these {self.examples}: one half of the metrics is missing"]
        return []

    def check(self, model: Any) -> dict[str, Any]:
        """Nothing more to say about a model that can answer.

        Raises:
            ModelError: The model has no such head.
            DataError: It cannot read the windows.
        """
        require_head(model, self.task)
        require_room(model, [window.example for window in self.windows])
        return {}

    def measure(self, model: Any, batch_tokens: int, told: Told | None) -> tuple[dict[str, float], list[str]]:
        """The task's metrics, in points."""
        examples = [window.example for window in self.windows]

        def read(output: Any, numbers: list[int]) -> list[Tensor]:
            both = torch.stack([output.start_logits, output.end_logits], dim=-1).float()
            return [row[: len(examples[number].ids)] for row, number in zip(both, numbers, strict=True)]

        logits = outputs(model, examples, read, batch_tokens=batch_tokens, padding=self.padding, told=told)
        predictions, spans, no_answer = self.answers(logits)
        if not self.task.no_answer:
            return squad_v1(self.golds, predictions), []
        best = squad_v2(self.golds, spans, no_answer, threshold=float("inf"))
        found = squad_v2(self.golds, predictions)
        return found | {name: value for name, value in best.items() if name.startswith("best_")}, []

    def answers(self, logits: Sequence[Tensor]) -> tuple[dict[str, str], dict[str, str], dict[str, float]]:
        """The answers, the best spans, and how much the null score exceeds each of these; by question.

        Args:
            logits: (tokens, 2) of every window: of starts and ends.
        """
        nulls = [np.inf] * self.examples
        spans: list[list[Answer]] = [[] for _ in range(self.examples)]
        for window, scores in zip(self.windows, logits, strict=True):
            array = scores.double().numpy()
            nulls[window.question] = min(nulls[window.question], float(array[window.null].sum()))
            spans[window.question] += n_best(array, window.spans)
        predictions, best_spans, no_answer = {}, {}, {}
        for number, name in enumerate(self.golds):
            ranked = sorted(spans[number], key=lambda answer: -answer.score)[:N_BEST]
            # A token may stand for no character.
            best = next((answer for answer in ranked if answer.end > answer.begin), Answer(0, 0, -np.inf))
            best_spans[name] = self.contexts[number][best.begin : best.end]
            no_answer[name] = nulls[number] - best.score
            is_none = self.task.no_answer and no_answer[name] > NULL_THRESHOLD
            predictions[name] = "" if is_none else best_spans[name]
        return predictions, best_spans, no_answer


def n_best(scores: Any, spans: Sequence[tuple[int, int] | None]) -> list[Answer]:
    """The spans between the best starts and the best ends of a window that are possible answers.

    Args:
        scores: (tokens, 2), logits of starts and ends.
        spans: Characters of each token; None for what is no context.
    """
    starts, ends = (np.argsort(-scores[:, side], kind="stable")[:N_BEST] for side in (0, 1))
    found = []
    for start in starts.tolist():
        for end in ends.tolist():
            first, last = spans[start], spans[end]
            if first is None or last is None or not start <= end < start + LONGEST_ANSWER:
                continue
            found.append(Answer(first[0], last[1], float(scores[start, 0] + scores[end, 1])))
    return found


def prepare_asked(task: Task, rows: list[dict[str, Any]], tokenizer: Any, seq_len: int, source: str) -> Asked:
    """Questions, contexts and answers -> windows.

    Raises:
        DataError: An answer cannot be read, an id comes twice, the tokenizer does not tell where its tokens
            stand in the text, or `seq_len` has no room for a context.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise DataError(
            f"tokenizer {type(tokenizer).__name__}: does not tell where tokens stand in the text, which "
            f"{task.name} needs; take a fast tokenizer (a folder with tokenizer.json)"
        )
    golds: dict[str, list[str]] = {}
    for row in rows:
        place = f"{source}, record {row['#']}"
        name = str(row.get("id") or row["#"])
        if name in golds:
            raise DataError(f"{place}: id {name!r} comes twice; each question needs an id of its own")
        golds[name] = _golds(row[task.label], task, place)
    stride = min(task.stride, seq_len // 3)
    questions, truncated = _cut([row[task.columns[0]].lstrip() for row in rows], tokenizer, seq_len, stride)
    contexts = [row[task.columns[1]] for row in rows]
    padding = getattr(tokenizer, "pad_token_id", None) or 0
    windows = _windows(questions, contexts, tokenizer, seq_len, stride)
    return Asked(task, windows, contexts, golds, truncated, 0, stride, padding)


def _golds(cell: Any, task: Task, place: str) -> list[str]:
    texts = cell.get("text") if isinstance(cell, dict) else cell
    if isinstance(texts, str):
        texts = [texts] if texts.strip() else []
    # What a mapping becomes in CSV is no answer.
    written = isinstance(cell, str) and cell.lstrip().startswith("{") and "answer_start" in cell
    if written or not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise DataError(
            f"{place}: column {task.label!r} holds {str(cell)[:60]!r}; it must hold the right answers, as in "
            f"{{'text': ['...'], 'answer_start': [0]}}, which CSV cannot; take JSON lines or Parquet"
        )
    if not texts and not task.no_answer:
        raise DataError(f"{place}: no answer in column {task.label!r}; such questions belong to squad_v2")
    return list(texts)


def _cut(questions: list[str], tokenizer: Any, seq_len: int, stride: int) -> tuple[list[str], int]:
    """Questions that leave room for more context than windows share, and how many had to be cut."""
    added = tokenizer.num_special_tokens_to_add(pair=True)
    room = seq_len - added - stride - 1
    if room < 1:
        # Of a short length a third is shared.
        raise DataError(
            f"sequence length {seq_len}: no room for a question beside a context; take at least "
            f"{(3 * (added + 2) - 1) // 2}"
        )
    made = tokenizer(questions, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    cut = list(questions)
    for number, offsets in enumerate(made["offset_mapping"]):
        count, most = len(offsets), room
        # A word cut in two may have more tokens than its part had.
        while count > room and most > 0:
            cut[number] = questions[number][: offsets[most - 1][1]]
            count = len(tokenizer(cut[number], add_special_tokens=False)["input_ids"])
            most -= 1
    return cut, sum(left != right for left, right in zip(cut, questions, strict=True))


def _windows(
    questions: list[str], contexts: list[str], tokenizer: Any, seq_len: int, stride: int
) -> list[Window]:
    made = tokenizer(
        questions,
        contexts,
        truncation="only_second",
        max_length=seq_len,
        stride=stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        verbose=False,
    )
    first = getattr(tokenizer, "cls_token_id", None)
    types = made.get("token_type_ids")
    found = []
    for number, question in enumerate(made["overflow_to_sample_mapping"]):
        ids, sides = made["input_ids"][number], made.sequence_ids(number)
        spans = [
            (span[0], span[1]) if side == 1 else None
            for span, side in zip(made["offset_mapping"][number], sides, strict=True)
        ]
        null = ids.index(first) if first in ids else 0
        found.append(Window(Example(ids, types[number] if types else None), question, spans, null))
    return found
