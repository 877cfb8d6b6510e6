"""How far a thinned model's outputs are from the dense model's, on a part of the calibration samples.

Where the outputs are choices (a next token, a masked one, the ends of a span), the divergence is
KL(dense || thin), in nats for each choice; for a causal model that is the loss in ln(perplexity), on
text that the dense model predicts as well as it believes. Where they are numbers (a score, hidden states)
it is the squared error over the dense outputs' variance or squared norm.

Which samples: every fourth, or where a sample has one choice (labels, a span) those that the dense model is
least sure of (engine/unsure.py). The last fits see these samples too: on other text the divergence is larger,
by half in one trial (docs/algorithm.md).
"""

from collections.abc import Sequence
from math import isfinite
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from statprune.anatomy.lookup import Anatomy
from statprune.calibration.batches import Batch, real_of, samples_in
from statprune.calibration.halving import in_halves
from statprune.calibration.stream import before_first_block, behind_last_block
from statprune.errors import NonFiniteError
from statprune.linalg.row_weights import wide

HOLD_OUT = 4
"""Every fourth calibration sample is held out while dampings are chosen."""

CHOICES = "KL(dense || thin) of the outputs, nats a choice, on every fourth calibration sample"
UNSURE = (
    "KL(dense || thin) of the outputs, nats a choice, on the samples that the dense model is least sure of"
)
NUMBERS = "squared error of the outputs over the dense ones', on every fourth calibration sample"

SURVEYED = 32
"""A survey compares the outputs on one of so many tokens."""

SHORTENED = 4
"""It takes the first of so many parts of a sample, where each token has outputs: many texts tell more."""

PROBE_TOKENS = 4096
"""Tokens on which divergences are measured, at most, unless one sample has more."""


def held_out(batches: Sequence[Batch]) -> list[Tensor]:
    """The rows of each batch that are held out, int64: every fourth sample, counted over all batches."""
    rows, seen = [], 0
    for batch in batches:
        numbers = torch.arange(samples_in(batch))
        rows.append(numbers[(numbers + seen) % HOLD_OUT == HOLD_OUT - 1])
        seen += len(numbers)
    return rows


def every_row(batches: Sequence[Batch]) -> list[Tensor]:
    """All rows of each batch, int64."""
    return [torch.arange(samples_in(batch)) for batch in batches]


def first_of(batches: Sequence[Batch], rows: Sequence[Tensor], tokens: int) -> list[Tensor]:
    """The first of `rows`, as many as have `tokens` tokens together, but at least one."""
    chosen, left = [], tokens
    for batch, each in zip(batches, rows, strict=True):
        lengths = batch["attention_mask"][each].sum(dim=1).cumsum(0)
        fitting = int((lengths <= left).sum())
        if left == tokens and fitting == 0:
            fitting = min(1, len(each))
        chosen.append(each[:fitting])
        left -= int(lengths[fitting - 1]) if fitting else 0
    return chosen


def probe_batches(batches: Sequence[Batch], *, of_tokens: bool) -> list[Batch]:
    """Held-out samples for a survey, of no more than PROBE_TOKENS.

    Where each token has outputs of its own (`of_tokens`), the beginnings of samples, a thirty-second of all
    tokens; else as many samples as there are. Not for choices of samples: engine/unsure.py.
    """
    if not of_tokens:
        return taken(batches, first_of(batches, held_out(batches), PROBE_TOKENS))
    tokens = sum(int(batch["attention_mask"].sum()) for batch in batches)
    begun = [_beginnings(batch) for batch in taken(batches, held_out(batches))]
    return taken(begun, first_of(begun, every_row(begun), min(PROBE_TOKENS, tokens // SURVEYED)))


def _beginnings(batch: Batch) -> Batch:
    """The first of SHORTENED parts of the samples, where that can be told: no padding in front."""
    length = batch["attention_mask"].shape[1]
    plain = all(value.ndim == 2 and value.shape[1] == length for value in batch.values())
    if not plain or not bool(batch["attention_mask"][:, 0].all()):
        return batch
    return {name: value[:, : -(-length // SHORTENED)] for name, value in batch.items()}


def taken(batches: Sequence[Batch], rows: Sequence[Tensor]) -> list[Batch]:
    """The batches of these rows; those without any are left out."""
    return [
        {name: value[each] for name, value in batch.items()}
        for batch, each in zip(batches, rows, strict=True)
        if len(each)
    ]


def judged(model: PreTrainedModel) -> PreTrainedModel:
    """The model whose outputs are compared: without its head where that cannot take plain samples in batches.

    Heads that want several texts a sample, or a padding token to find the last one.
    """
    name = type(model).__name__
    unpadded = "SequenceClassification" in name and getattr(model.config, "pad_token_id", None) is None
    base: PreTrainedModel = model.base_model
    return base if unpadded or "MultipleChoice" in name else model


@torch.no_grad()
def outputs_on_one(model: PreTrainedModel, anatomy: Anatomy, batch: Batch) -> tuple[str, bool]:
    """What a divergence of `model`'s outputs is, and whether each token has some of its own, or each sample.

    The first is CHOICES, UNSURE or NUMBERS. Tried out on one sample; no block runs.
    """
    one = {name: value[:1] for name, value in batch.items()}
    walk = before_first_block(model, anatomy, [one])
    for run in anatomy.runs[1:]:
        walk.stand_before(run.start)
    hidden, real = walk.hidden[0], walk.real[0]
    head = judged(model)
    found = compared(behind_last_block(head, anatomy, hidden, one), real)
    of_tokens = len(found[0]) == int(real.sum())
    return _unit_of(head, found, of_tokens=of_tokens), of_tokens


@torch.no_grad()
def outputs_of(model: PreTrainedModel, anatomy: Anatomy, batch: Batch, hidden: Tensor) -> tuple[Tensor, ...]:
    """What is compared of `model`'s outputs for `batch` if its last block returns `hidden`."""
    real = real_of(batch, len(anatomy.runs) - 1, hidden)

    def run(rows: slice) -> tuple[Tensor, ...]:
        part = {name: value[rows] for name, value in batch.items()}
        return compared(behind_last_block(model, anatomy, hidden[rows], part), real[rows])

    pieces = [each for _, each in in_halves(len(hidden), run, "outputs to compare")]
    return pieces[0] if len(pieces) == 1 else tuple(map(torch.cat, zip(*pieces, strict=True)))


class Outputs:
    """The dense model's outputs for `batches`, to compare a thinned one's with.

    Args:
        model: whose final norm and head are used.
        anatomy: its blocks do not run.
        batches: the samples.
        dense: what the dense model's last block returns, (rows, length, width) for each batch.

    Memory: those outputs, for a causal model as many numbers as there are tokens, times the vocabulary.
    """

    def __init__(
        self, model: PreTrainedModel, anatomy: Anatomy, batches: Sequence[Batch], dense: Sequence[Tensor]
    ) -> None:
        self._model, self._anatomy, self._batches = judged(model), anatomy, batches
        found = [self._of(number, hidden) for number, hidden in enumerate(dense)]
        tokens = int(real_of(batches[0], len(anatomy.runs) - 1, dense[0]).sum())
        self.unit = _unit_of(self._model, found[0], of_tokens=len(found[0][0]) == tokens)
        numbers = self.unit == NUMBERS
        self._dense = [[Reference(each, numbers=numbers) for each in batch] for batch in found]

    @torch.no_grad()
    def divergence(self, hidden: Sequence[Tensor]) -> float:
        """Of a model whose last block returns `hidden`, one (rows, length, width) a batch."""
        total = weight = 0.0
        for number, each in enumerate(hidden):
            for dense, thin in zip(self._dense[number], self._of(number, each), strict=True):
                total, weight = total + dense.distance(thin), weight + dense.weight
        return total / weight if weight else 0.0

    def _of(self, number: int, hidden: Tensor) -> tuple[Tensor, ...]:
        return outputs_of(self._model, self._anatomy, self._batches[number], hidden)


def _unit_of(model: PreTrainedModel, found: Sequence[Tensor], *, of_tokens: bool) -> str:
    """What a divergence of these outputs is; `of_tokens`: whether they have a row a token, or a sample."""
    # A score, or the hidden states of a model without a head, are numbers, not choices.
    if found[0].shape[-1] == 1 or model.base_model is model:
        return NUMBERS
    return CHOICES if of_tokens else UNSURE


def compared(output: Any, real: Tensor) -> tuple[Tensor, ...]:
    """What of a model's output is compared, each (rows, outputs) in float32 or wider, padding left out.

    Both ends of a span, else the logits, else the last hidden states; those of tokens have a row a token.
    """
    if getattr(output, "start_logits", None) is not None:
        lowest = torch.finfo(torch.float32).min
        both = (output.start_logits, output.end_logits)
        return tuple(wide(each).masked_fill(~real, lowest) for each in both)
    logits = getattr(output, "logits", None)
    found: Tensor = logits if logits is not None else output.last_hidden_state
    return (wide(found[real] if found.shape[:2] == real.shape and found.ndim == 3 else found),)


class Reference:
    """What thin outputs (rows, outputs) are compared with.

    `weight` is what distances are divided by: rows for choices, the dense outputs' size for numbers.

    Args:
        dense: (rows, outputs) of the dense model.
        numbers: whether outputs are numbers; a single column is compared about its mean.
    """

    def __init__(self, dense: Tensor, *, numbers: bool) -> None:
        self._numbers = numbers
        if numbers:
            self._dense = dense
            size = dense - dense.mean() if dense.shape[-1] == 1 else dense
            self.weight = float(size.square().sum(dtype=torch.float64))
        else:
            log = torch.log_softmax(dense, dim=-1)
            self._dense = log.exp()
            self._least = _over_rows(self._dense, log)
            self.weight = float(len(dense))

    def distance(self, thin: Tensor) -> float:
        """The squared error, or the divergence, summed over rows.

        Raises:
            NonFiniteError: it is NaN or infinite.
        """
        if self._numbers:
            return _finite(float((self._dense - thin).square().sum(dtype=torch.float64)), thin)
        found = self._least - _over_rows(self._dense, torch.log_softmax(thin, dim=-1))
        return max(0.0, _finite(found, thin))


def _over_rows(p: Tensor, log: Tensor) -> float:
    """The sum of p log q, in float64: a divergence is a small difference of two.

    What has no probability counts nothing, even where a mask makes its logit minus infinity.
    """
    return float((p * log).masked_fill_(p == 0, 0).sum(dtype=torch.float64))


def _finite(distance: float, thin: Tensor) -> float:
    if isfinite(distance):
        return distance
    wrong = int((~torch.isfinite(thin)).sum())
    raise NonFiniteError(
        f"the outputs of the thinned model are {distance} from the dense ones: {wrong} of {thin.numel()} are "
        f"NaN or infinite. Nothing was written. Try --dtype float32."
    )
