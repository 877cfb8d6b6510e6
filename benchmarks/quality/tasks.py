"""Tasks on which a pruned encoder is judged: calibration texts, and a score in points.

    task = load("mrpc", shared("data"))
    task.train                          # what it may be calibrated on, without labels
    task.score(model, tokenizer)        # the metric on the held-out split, 0 to 100

A model is only ever called, `model(**batch)`: its blocks may have any widths. It is scored as it comes, in
float32 and evaluation mode. The held-out split is tokenised once, and read in batches of similar length.
"""

import json
import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from scipy.stats import spearmanr
from torch import Tensor

Row = dict[str, Any]
Inputs = dict[str, list[int]]
Span = tuple[int, int]

BATCH_TOKENS = 2048
STRIDE = 64
LONGEST_ANSWER = 30
SUBSET_SEED = 0


@dataclass(frozen=True)
class Window:
    """A question and a part of its context: `spans[t]` are token t's characters in the context, or None."""

    inputs: Inputs
    row: int
    spans: list[Any]


@dataclass(frozen=True)
class Kind:
    """How a task is read and judged: `folder` lies in the data folder, `split` is the one held out."""

    metric: str
    folder: str
    split: str
    columns: tuple[str, ...]
    seq_len: int
    encode: Callable[[list[Row], Sequence[str], Any, int], list[Any]]
    measure: Callable[[Any, list[Any], list[Row], int], dict[str, float]]


@dataclass(frozen=True)
class Task:
    """What a model is calibrated on and judged by.

    Attributes:
        name: the task.
        metric: the detail that is the score.
        text_column: the columns that `train` was read from, in the tokenizer's order.
        train: calibration texts; a record is a string, or the two strings that the tokenizer gets.
        seq_len: most tokens of a sample, in calibration and evaluation.
        rows: the held-out records, with labels.
        protocol: what a published number has to say.
    """

    name: str
    metric: str
    text_column: tuple[str, ...]
    train: list[Any]
    seq_len: int
    rows: list[Row]
    protocol: dict[str, Any]
    tokenised: list[Any] = field(default_factory=list, compare=False, repr=False)

    def score(self, model: Any, tokenizer: Any) -> float:
        """The metric in points."""
        return self.details(model, tokenizer)[self.metric]

    def details(self, model: Any, tokenizer: Any) -> dict[str, float]:
        """The metric and its companions, in points."""
        if model.training or next(model.parameters()).dtype != torch.float32:
            raise ValueError(
                f"{self.name} is scored in float32 and evaluation mode: call model.float().eval()."
            )
        kind = KINDS[self.name]
        if not self.tokenised or self.tokenised[0] is not tokenizer:
            encoded = kind.encode(self.rows, self.text_column, tokenizer, self.seq_len)
            self.tokenised[:] = [tokenizer, encoded]
        return kind.measure(model, self.tokenised[1], self.rows, tokenizer.pad_token_id)


def rows_of(path: Path) -> list[Row]:
    """The records of a JSON-lines file."""
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def padded(examples: Sequence[Inputs], pad: int) -> dict[str, Tensor]:
    """Tensors (examples, tokens) of inputs padded on the right, with their attention mask."""
    lengths = torch.tensor([len(example["input_ids"]) for example in examples])
    width = int(lengths.max())
    made = {"attention_mask": (torch.arange(width) < lengths[:, None]).long()}
    for name in examples[0]:
        fill = pad if name == "input_ids" else 0
        values = [example[name] for example in examples]
        made[name] = torch.tensor([value + [fill] * (width - len(value)) for value in values])
    return made


def batches(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Indices in batches of similar length, each of at most `tokens` tokens with padding, longest first."""
    made: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if not made or (len(made[-1]) + 1) * lengths[made[-1][0]] > tokens:
            made.append([])
        made[-1].append(index)
    return made


@torch.no_grad()
def outputs(
    model: Any, examples: list[Inputs], pad: int, read: Callable[[Any, Tensor], Tensor]
) -> list[Tensor]:
    """What `read(output, attention_mask)` finds for every example, in the order of the examples."""
    device = next(model.parameters()).device
    found = [torch.empty(0)] * len(examples)
    for indices in batches([len(example["input_ids"]) for example in examples], BATCH_TOKENS):
        tensors = padded([examples[index] for index in indices], pad)
        batch = {name: value.to(device) for name, value in tensors.items()}
        answers = read(model(**batch), batch["attention_mask"]).cpu()
        for index, answer in zip(indices, answers, strict=True):
            found[index] = answer
    return found


def inputs(tokenised: Any, index: int) -> Inputs:
    """The model's inputs of one example that the tokenizer made; the mask follows from its length."""
    return {name: tokenised[name][index] for name in ("input_ids", "token_type_ids") if name in tokenised}


def encode_records(rows: list[Row], columns: Sequence[str], tokenizer: Any, seq_len: int) -> list[Inputs]:
    """One example a row; of two columns, as a pair."""
    texts = [[row[column] for row in rows] for column in columns]
    made = tokenizer(*texts, truncation=True, max_length=seq_len)
    return [inputs(made, index) for index in range(len(rows))]


def encode_alone(rows: list[Row], columns: Sequence[str], tokenizer: Any, seq_len: int) -> list[Inputs]:
    """One example a text: all of the first column, then all of the second."""
    return [made for column in columns for made in encode_records(rows, [column], tokenizer, seq_len)]


def windows(rows: list[Row], columns: Sequence[str], tokenizer: Any, seq_len: int) -> list[Window]:
    """Question and context; a long context is several windows that share STRIDE tokens."""
    made = tokenizer(
        *[[row[column] for row in rows] for column in columns],
        truncation="only_second",
        max_length=seq_len,
        stride=STRIDE,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    found = []
    for index, row in enumerate(made["overflow_to_sample_mapping"]):
        sides, offsets = made.sequence_ids(index), made["offset_mapping"][index]
        spans = [tuple(span) if side == 1 else None for side, span in zip(sides, offsets, strict=True)]
        found.append(Window(inputs(made, index), row, spans))
    return found


def logits(output: Any, _: Tensor) -> Tensor:
    """(examples, labels)."""
    return output.logits


def span_logits(output: Any, _: Tensor) -> Tensor:
    """(examples, tokens, 2): the start and the end of the answer."""
    return torch.stack([output.start_logits, output.end_logits], dim=-1)


def unit_means(output: Any, mask: Tensor) -> Tensor:
    """(examples, features): mean of the token embeddings, at length 1."""
    total = (output.last_hidden_state * mask[..., None]).sum(1)
    return torch.nn.functional.normalize(total / mask.sum(1, keepdim=True), dim=1)


def spearman(predicted: Tensor, rows: list[Row]) -> dict[str, float]:
    """100 x rank correlation with the labels."""
    return {"spearman": 100 * float(spearmanr(predicted.tolist(), [row["label"] for row in rows]).statistic)}


def measure_regression(model: Any, encoded: list[Inputs], rows: list[Row], pad: int) -> dict[str, float]:
    """Spearman of the head's only output."""
    return spearman(torch.stack(outputs(model, encoded, pad, logits))[:, 0], rows)


def measure_cosine(model: Any, encoded: list[Inputs], rows: list[Row], pad: int) -> dict[str, float]:
    """Spearman of the cosine of mean-pooled embeddings."""
    first, second = torch.stack(outputs(model, encoded, pad, unit_means)).chunk(2)
    return spearman((first * second).sum(1), rows)


def measure_classes(model: Any, encoded: list[Inputs], rows: list[Row], pad: int) -> dict[str, float]:
    """Accuracy, and F1 of class 1."""
    found = torch.stack(outputs(model, encoded, pad, logits)).argmax(1)
    labels = torch.tensor([row["label"] for row in rows])
    positives = int(found.sum() + labels.sum())
    f1 = 2 * int((found * labels).sum()) / positives if positives else 0.0
    return {"accuracy": 100 * (found == labels).double().mean().item(), "f1": 100 * f1}


def normalised(answer: str) -> str:
    """SQuAD's form of an answer: lower case, no punctuation, no articles, single spaces."""
    bare = "".join(letter for letter in answer.lower() if letter not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


def overlap(found: str, gold: str) -> float:
    """F1 of the words that both share, once normalised."""
    left, right = Counter(normalised(found).split()), Counter(normalised(gold).split())
    both = (left & right).total()
    return 2 * both / (left.total() + right.total()) if both else 0.0


def best_span(scores: Tensor, spans: list[Any]) -> tuple[float, Span]:
    """Start + end logit of a window's best answer, and its characters in the context.

    Every span of at most LONGEST_ANSWER tokens of the context is tried. `scores` (tokens, 2) are the logits.
    """
    tokens = [token for token, span in enumerate(spans) if span is not None]
    first, last = tokens[0], tokens[-1] + 1
    sums = scores[first:last, 0, None] + scores[None, first:last, 1]
    allowed = torch.ones_like(sums, dtype=torch.bool).triu().tril(LONGEST_ANSWER - 1)
    start, end = divmod(int(sums.masked_fill(~allowed, -torch.inf).argmax()), last - first)
    return sums[start, end].item(), (spans[first + start][0], spans[first + end][1])


def measure_answers(model: Any, encoded: list[Window], rows: list[Row], pad: int) -> dict[str, float]:
    """F1 and exact match of the best answer over a question's windows, against its best gold answer."""
    scores = outputs(model, [window.inputs for window in encoded], pad, span_logits)
    best = [(-torch.inf, (0, 0))] * len(rows)
    for window, score in zip(encoded, scores, strict=True):
        best[window.row] = max(best[window.row], best_span(score, window.spans))
    total = {"f1": 0.0, "exact": 0.0}
    for row, (_, (begin, end)) in zip(rows, best, strict=True):
        answer, golds = row["context"][begin:end], row["answers"]["text"]
        total["f1"] += max(overlap(answer, gold) for gold in golds) * 100 / len(rows)
        total["exact"] += max(normalised(answer) == normalised(gold) for gold in golds) * 100 / len(rows)
    return total


PAIR = ("sentence1", "sentence2")
KINDS = {
    "sst2": Kind("accuracy", "glue/sst2", "validation", ("sentence",), 64, encode_records, measure_classes),
    "mrpc": Kind("accuracy", "glue/mrpc", "validation", PAIR, 128, encode_records, measure_classes),
    "stsb": Kind("spearman", "glue/stsb", "test", PAIR, 128, encode_records, measure_regression),
    "stsb-cosine": Kind("spearman", "glue/stsb", "test", PAIR, 128, encode_alone, measure_cosine),
    "squad": Kind("f1", "squad", "validation", ("question", "context"), 256, windows, measure_answers),
}


def protocol_of(kind: Kind, used: int, whole: int) -> dict[str, Any]:
    """What a number measured this way has to say."""
    drawn = f", drawn by seed {SUBSET_SEED}" if used < whole else ""
    told = {
        "calibration": f"{kind.folder} train, {' and '.join(kind.columns)}, unlabelled",
        "test": f"{used} of {whole} records of {kind.folder} {kind.split}{drawn}",
        "metric": f"100 x {kind.metric}",
        "longest": f"{kind.seq_len} tokens",
        "dtype": "float32",
    }
    if kind.encode is windows:
        told["answers"] = (
            f"SQuAD v1.1 normalisation, best of the gold answers; the span of the largest start + end logit, "
            f"at most {LONGEST_ANSWER} tokens, over windows that share {STRIDE} tokens"
        )
    return told


def load(name: str, root: Path, limit: int | None = None) -> Task:
    """A task of KINDS, from the folder `root` that holds `glue/` and `squad/`.

    `limit` is the most held-out records, drawn by SUBSET_SEED; all if not given.
    """
    kind = KINDS[name]
    rows = rows_of(root / kind.folder / f"{kind.split}.jsonl")
    drawn = torch.randperm(len(rows), generator=torch.Generator().manual_seed(SUBSET_SEED))[:limit]
    held_out = [rows[index] for index in sorted(drawn.tolist())]
    every = rows_of(root / kind.folder / "train.jsonl")
    train: list[Any] = [tuple(row[name] for name in kind.columns) for row in every]
    if kind.encode is encode_alone or len(kind.columns) == 1:
        train = [text for record in train for text in record]
    protocol = protocol_of(kind, len(held_out), len(rows))
    return Task(name, kind.metric, kind.columns, train, kind.seq_len, held_out, protocol)
