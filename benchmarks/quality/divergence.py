"""How far outputs of a narrowed model are from those of the dense one, on held-out data; labels play no part.

    between_texts(dense, model, batches)     # nats a token
    between_records(task, dense, model, tokenizer)

Kullback-Leibler divergence, in nats: of the next token, of the class, of the answer's start plus that of its
end. Of a regression, mean squared difference over the variance of the dense model's output.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.quality.tasks import KINDS, Task, Window, encode_records, logits, outputs, span_logits

RECORDS = 256
"""Of the held-out ones, so many at the most, drawn by seed 0."""


@torch.no_grad()
def between_texts(dense: Any, model: Any, batches: Sequence[dict[str, Tensor]]) -> float:
    """Mean over the tokens of batches without padding."""
    found = [divergences(dense(**batch).logits, model(**batch).logits).flatten() for batch in batches]
    return float(torch.cat(found).double().mean())


def between_records(task: Task, dense: Any, model: Any, tokenizer: Any) -> float:
    """Mean over RECORDS of the task's held-out records; of questions, over the windows of their contexts."""
    kind = KINDS[task.name]
    drawn = torch.randperm(len(task.rows), generator=torch.Generator().manual_seed(0))[:RECORDS].tolist()
    encoded = kind.encode([task.rows[index] for index in drawn], task.text_column, tokenizer, task.seq_len)
    examples = [each.inputs if isinstance(each, Window) else each for each in encoded]
    read = logits if kind.encode is encode_records else span_logits
    before, after = (outputs(each, examples, tokenizer.pad_token_id, read) for each in (dense, model))
    if read is span_logits:
        lengths = [len(example["input_ids"]) for example in examples]
        return _mean(
            divergences(a[:length].T, b[:length].T).sum()
            for a, b, length in zip(before, after, lengths, strict=True)
        )
    if len(before[0]) == 1:
        a, b = torch.cat(before).double(), torch.cat(after).double()
        return float((a - b).square().mean() / a.var(correction=0))
    return _mean(divergences(a, b) for a, b in zip(before, after, strict=True))


def divergences(before: Tensor, after: Tensor) -> Tensor:
    """Of logits (..., outcomes), (...)."""
    a, b = before.float().log_softmax(-1), after.float().log_softmax(-1)
    return (a.exp() * (a - b)).sum(-1)


def _mean(values: Any) -> float:
    return float(torch.stack([*values]).double().mean())


Diverge = Callable[[Any, Any, Any], dict[str, float]]
"""(dense model, narrowed model, tokenizer) -> divergence by the name of the data."""
