"""The perplexity of a whole text, tokenised once for many models: WikiText-2, PTB, C4."""

from dataclasses import dataclass
from typing import Any

from statprune.calibration.records import Records
from statprune.calibration.tokens import TokenStream, token_stream
from statprune.errors import DataError
from statprune.evaluation.batching import Example, Told, require_room
from statprune.evaluation.heads import require_head
from statprune.evaluation.perplexity import perplexity
from statprune.evaluation.tasks import Task


@dataclass(frozen=True, eq=False)
class WholeText:
    """A tokenised text.

    Attributes:
        task: What it is of.
        stream: Its tokens.
        records: Where they came from.
        seq_len: Tokens in a window.
        examples: Windows read.
        truncated: Always 0: windows are whole, and the protocol counts the tokens that fill none.
        skipped: Always 0.
    """

    task: Task
    stream: TokenStream
    records: Records
    seq_len: int
    examples: int
    truncated: int = 0
    skipped: int = 0

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row that a model reads."""
        return [self.seq_len] * self.examples

    @property
    def protocol(self) -> dict[str, Any]:
        """What of the task determines the number, the rest being told by `perplexity`."""
        return {
            "join": self.stream.join,
            "window": self.seq_len,
            "stride": self.seq_len,
            "tokens": self.examples * (self.seq_len - 1),
            "tokens of the text": len(self.stream.ids),
            "tokens not read": len(self.stream.ids) - self.examples * self.seq_len,
            "beginning_of_text": self.stream.beginning_of_text,
            "loss": "positions 2 to window of each, natural; log-softmax in float32, mean in float64",
        }

    @property
    def notes(self) -> list[str]:
        """Nothing that the counts do not say."""
        return []

    def check(self, model: Any) -> dict[str, Any]:
        """Nothing more to say about a model that writes.

        Raises:
            ModelError: The model does not write from left to right.
            DataError: It cannot read the windows.
        """
        require_head(model, self.task)
        read = self.stream.ids[: self.examples * self.seq_len]
        require_room(model, [Example([int(read.max())] * self.seq_len)])
        return {}

    def measure(self, model: Any, batch_tokens: int, told: Told | None) -> tuple[dict[str, float], list[str]]:
        """The perplexity."""
        found = perplexity(
            model,
            None,
            self.records,
            stream=self.stream,
            seq_len=self.seq_len,
            batch_tokens=batch_tokens,
            max_tokens=self.examples * self.seq_len,
            on_progress=told,
        )
        return {"perplexity": found.perplexity}, []


def prepare_whole_text(
    task: Task, records: Records, tokenizer: Any, seq_len: int, max_windows: int | None
) -> WholeText:
    """A task's records -> one text, and how much of it is read.

    Raises:
        DataError: There is less than one window, or a window of one token.
    """
    if seq_len < 2:
        raise DataError(f"sequence length {seq_len}: nothing to predict; take at least 2")
    stream = token_stream(records, tokenizer, join=task.join)
    limits = [len(stream.windows(seq_len)), max_windows, task.windows]
    windows = min(limit for limit in limits if limit is not None)
    return WholeText(task, stream, records, seq_len, windows)
