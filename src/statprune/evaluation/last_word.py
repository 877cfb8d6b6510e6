"""The last word of a passage, by all that stands before it: LAMBADA."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from statprune.errors import DataError
from statprune.evaluation.batching import Example, Told, outputs, require_room
from statprune.evaluation.devices import rows_at_once
from statprune.evaluation.heads import require_head
from statprune.evaluation.tasks import Task


class Passage(NamedTuple):
    """What a model reads, and how many of its last tokens are those of the last word."""

    example: Example
    word: int


@dataclass(frozen=True, eq=False)
class LastWords:
    """Tokenised passages.

    Attributes:
        task: What they are of.
        passages: What a model reads.
        truncated: Passages that have lost their beginning.
        skipped: Texts of one word, or whose last word alone is too long: nothing to predict it from.
        beginning_of_text: Whether the tokenizer puts special tokens in front.
        padding: The tokenizer's token for padding.
    """

    task: Task
    passages: list[Passage]
    truncated: int
    skipped: int
    beginning_of_text: bool
    padding: int

    @property
    def examples(self) -> int:
        """How many words are asked for."""
        return len(self.passages)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row that a model reads."""
        return [len(passage.example.ids) for passage in self.passages]

    @property
    def protocol(self) -> dict[str, Any]:
        """What of the task determines the number."""
        return {
            "word": "the last by white space; its tokens, given all before",
            "tokens": sum(passage.word for passage in self.passages),
            "beginning_of_text": self.beginning_of_text,
            "accuracy": "of words all of whose tokens are the model's first choice",
            "perplexity": "exp of the mean over words of -ln p(word); log-softmax in float32",
        }

    @property
    def notes(self) -> list[str]:
        """Nothing that the counts do not say."""
        return []

    def check(self, model: Any) -> dict[str, Any]:
        """Nothing more to say about a model that writes.

        Raises:
            ModelError: The model does not write from left to right.
            DataError: It cannot read the passages.
        """
        require_head(model, self.task)
        require_room(model, [passage.example for passage in self.passages])
        return {}

    def measure(self, model: Any, batch_tokens: int, told: Told | None) -> tuple[dict[str, float], list[str]]:
        """The task's metrics: accuracy in points, and perplexity."""

        def read(output: Any, numbers: list[int]) -> list[Tensor]:
            return [
                _found(logits, self.passages[number])
                for logits, number in zip(output.logits, numbers, strict=True)
            ]

        examples = [passage.example for passage in self.passages]
        longest = max(len(each.ids) for each in examples)
        found = torch.stack(
            outputs(
                model,
                examples,
                read,
                batch_tokens=rows_at_once(model, longest, batch_tokens) * longest,
                padding=self.padding,
                told=told,
            )
        )
        loss, right = found.mean(0).tolist()
        return {"accuracy": 100 * right, "perplexity": math.exp(loss) if loss < 700 else math.inf}, []


def prepare_last_words(
    task: Task, texts: Sequence[Any], tokenizer: Any, seq_len: int, source: str
) -> LastWords:
    """Texts -> what a model reads of them.

    Raises:
        DataError: No text has two words, or they are token ids.
    """
    passages: list[Passage] = []
    truncated, front = 0, _front(tokenizer)
    for number, text in enumerate(texts, start=1):
        if not isinstance(text, str):
            raise DataError(
                f"{source}, record {number}: {type(text).__name__} found; {task.name} reads texts"
            )
        passage, is_cut = _passage(text.strip(), front, tokenizer, seq_len)
        if passage is not None:
            passages.append(passage)
            truncated += is_cut
    if not passages:
        raise DataError(
            f"{source}: none of {len(texts)} texts has a last word that fits {seq_len} tokens with a word "
            f"before it; give passages of several words"
        )
    padding = getattr(tokenizer, "pad_token_id", None) or 0
    return LastWords(task, passages, truncated, len(texts) - len(passages), bool(front), padding)


def _front(tokenizer: Any) -> list[int]:
    """The special tokens that the tokenizer puts in front of a text."""
    made = tokenizer("a", return_special_tokens_mask=True)
    text = made["special_tokens_mask"].index(0) if 0 in made["special_tokens_mask"] else 0
    return list(made["input_ids"][:text])


def _passage(text: str, front: list[int], tokenizer: Any, seq_len: int) -> tuple[Passage | None, bool]:
    """A passage, and whether its beginning is lost; none where nothing stands before its last word."""
    words = text.rsplit(maxsplit=1)
    if len(words) < 2:
        return None, False
    before, whole = (
        tokenizer(each, add_special_tokens=False, verbose=False)["input_ids"] for each in (words[0], text)
    )
    shared = 0
    while shared < min(len(before), len(whole)) and before[shared] == whole[shared]:
        shared += 1
    word = len(whole) - shared
    room = seq_len - len(front)
    if word < 1 or word > room - (0 if front else 1) or not (front or shared):
        return None, False
    return Passage(Example(front + whole[-room:]), word), len(whole) > room


def _found(logits: Tensor, passage: Passage) -> Tensor:
    """(2,) float64: -log p(word), and whether every token is the model's first choice."""
    ids = passage.example.ids
    said = logits[len(ids) - passage.word - 1 : len(ids) - 1].float()
    wanted = torch.tensor(ids[-passage.word :], device=said.device)
    loss = torch.nn.functional.cross_entropy(said, wanted, reduction="none").double().sum()
    right = (said.argmax(-1) == wanted).all().double()
    return torch.stack([loss, right])
