"""Perplexity of a causal model, and the masked-token loss of an encoder; each with its whole protocol."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from statprune.calibration.halving import Pace, in_halves
from statprune.calibration.records import Records
from statprune.calibration.samples import by_length
from statprune.calibration.tokens import (
    Row,
    TokenStream,
    encode,
    pad,
    require_tokenizer,
    single_records,
    token_stream,
)
from statprune.errors import DataError, NonFiniteError
from statprune.evaluation.devices import (
    evaluating,
    place_of,
    require_fit,
    rows_at_once,
    summed_loss,
    takes,
)

BATCH_TOKENS = 8192

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Perplexity:
    """How well a causal model predicts a text.

    Attributes:
        perplexity: exp(nll).
        nll: Mean negative natural logarithm of the probability of a predicted token.
        tokens: Predicted positions, (seq_len - 1) a window.
        windows: Windows read.
        protocol: All that two numbers must share to be comparable, ready for JSON.
    """

    perplexity: float
    nll: float
    tokens: int
    windows: int
    protocol: dict[str, Any]

    def headline(self) -> str:
        """The number, in one line."""
        return f"perplexity {self.perplexity:.4f} ({self.nll:.5f} nats a token, {self.tokens} tokens)"

    def to_json(self) -> dict[str, Any]:
        """The attributes as a mapping that `json.dumps` takes."""
        return asdict(self)


@dataclass(frozen=True)
class MaskedLoss:
    """How well an encoder with a masked-token head fills in what is masked.

    Attributes:
        loss: Mean negative natural logarithm of the probability of a masked token.
        pseudo_perplexity: exp(loss).
        tokens: Masked tokens.
        samples: Records read.
        protocol: All that two numbers must share to be comparable, ready for JSON.
    """

    loss: float
    pseudo_perplexity: float
    tokens: int
    samples: int
    protocol: dict[str, Any]

    def headline(self) -> str:
        """The number, in one line."""
        return f"masked-token loss {self.loss:.5f} nats over {self.tokens} masked tokens"

    def to_json(self) -> dict[str, Any]:
        """The attributes as a mapping that `json.dumps` takes."""
        return asdict(self)


class _Question(NamedTuple):
    """A row with masks in it, their places, and the token ids that stood there."""

    row: Row
    places: list[int]
    answers: list[int]


def perplexity(  # noqa: PLR0913 - all but three are named
    model: nn.Module,
    tokenizer: Any,
    records: Records,
    *,
    seq_len: int,
    batch_tokens: int = BATCH_TOKENS,
    max_tokens: int | None = None,
    stream: TokenStream | None = None,
    on_progress: Progress | None = None,
) -> Perplexity:
    r"""Perplexity by the usual protocol, equal to that of the GPTQ, SliceGPT and Wanda scripts.

    Records are joined with "\n\n" and tokenised once with the tokenizer's own special tokens; windows of
    `seq_len` do not overlap, the tail is dropped; the first token of a window is not predicted.

    Args:
        model: Any causal language model, on any device; its mode is put back afterwards.
        tokenizer: Its tokenizer; may be None for records of token ids.
        records: The text.
        seq_len: Tokens in a window. Numbers of different `seq_len` cannot be compared.
        batch_tokens: Tokens in a batch, at most, unless one window is longer.
        max_tokens: Read the first windows only, of this many tokens together.
        stream: The text of the records, where it is tokenised already, by whatever join.
        on_progress: Called with the windows done and the windows in all, after each batch.

    Raises:
        DataError: There is less than one window, or the model cannot read such windows or ids.
        NonFiniteError: The loss is not finite.
        ShortOfMemoryError: Memory is short for one row alone.
    """
    if seq_len < 2:
        raise DataError(f"sequence length {seq_len}: nothing to predict; take at least 2")
    stream = stream if stream is not None else token_stream(records, tokenizer)
    rows = stream.windows(seq_len)
    if max_tokens is not None:
        if max_tokens < seq_len:
            raise DataError(
                f"max_tokens {max_tokens}: less than one window of {seq_len}; allow at least {seq_len}"
            )
        rows = rows[: max_tokens // seq_len]
    require_fit(model, rows, seq_len)
    device, dtype = place_of(model)
    options = {"use_cache": False} if takes(model, "use_cache") else {}
    total, done, pace = 0.0, 0, Pace()

    def loss_of(ids: Tensor, part: slice) -> float:
        batch = ids[part].to(device)
        logits = model(input_ids=batch, **options).logits
        return sum(summed_loss(one[:-1], targets[1:]) for one, targets in zip(logits, batch, strict=True))

    with evaluating(model):
        for ids in torch.split(rows, rows_at_once(model, seq_len, batch_tokens)):
            pieces = in_halves(len(ids), partial(loss_of, ids), "windows", pace)
            total += sum(loss for _, loss in pieces)
            done += len(ids)
            if on_progress is not None:
                on_progress(done, len(rows))
    tokens = len(rows) * (seq_len - 1)
    nll = _mean(total, tokens)
    protocol = {
        "data": records.description,
        "split": records.description.get("split"),
        "join": stream.join,
        "window": seq_len,
        "stride": seq_len,
        "tokens": tokens,
        "windows": len(rows),
        "max_tokens": max_tokens,
        "beginning_of_text": stream.beginning_of_text,
        "dtype": str(dtype).removeprefix("torch."),
        "device": device.type,
        "loss": "positions 2 to window of each, natural logarithm; log-softmax in float32, mean in float64",
    }
    return Perplexity(_exp(nll), nll, tokens, len(rows), protocol)


def masked_lm_loss(  # noqa: PLR0913 - all but three are named
    model: nn.Module,
    tokenizer: Any,
    records: Records,
    *,
    seq_len: int,
    generator: torch.Generator,
    share: float = 0.15,
    max_tokens: int | None = None,
    on_progress: Progress | None = None,
) -> MaskedLoss:
    """Loss of an encoder at tokens that are replaced by the mask token, `share` of each sample, at least one.

    One record is one sample, in order, as in `calibration.samples.sentences`. Which tokens are masked
    depends on the generator and the records before, not on the model or the batches: two models with one
    tokenizer and generators of one seed are asked the same.

    Args:
        model: An encoder with a masked-token head.
        tokenizer: Its tokenizer, with a mask token.
        records: Texts or pairs.
        seq_len: Tokens of a sample, special tokens included; longer ones are truncated.
        generator: Draws the masked positions; on the CPU. Record its seed beside the number.
        share: Part of the tokens, special tokens not counted, that is masked.
        max_tokens: Read the first records only, of at most this many tokens together, but at least one.
        on_progress: Called with the samples done and the samples in all, after each batch.

    Raises:
        DataError: There is no mask token or no text, or the model cannot read such samples or ids.
        NonFiniteError: The loss is not finite.
        ShortOfMemoryError: Memory is short for one row alone.
    """
    require_tokenizer(tokenizer, str(records.description.get("source", "records")))
    mask_token = getattr(tokenizer, "mask_token_id", None)
    if mask_token is None:
        message = f"tokenizer {type(tokenizer).__name__}: no mask token"
        raise DataError(f"{message}; use the tokenizer of an encoder, or the perplexity of a causal model")
    if not 0 < share < 1:
        raise DataError(f"share {share}: not a part of the tokens; take one between 0 and 1, such as 0.15")
    rows = _rows(records, tokenizer, seq_len, max_tokens)
    questions = [_question(row, mask_token, share, generator) for row in rows]
    questions.sort(key=lambda question: -len(question.row.ids))
    longest = len(questions[0].row.ids)
    require_fit(model, torch.tensor([token for row in rows for token in row.ids]), longest)
    device, dtype = place_of(model)
    total, tokens, done, pace = 0.0, 0, 0, Pace()

    def loss_of(group: list[_Question], part: slice) -> float:
        asked = group[part]
        batch = pad([question.row for question in asked], tokenizer)
        targets = torch.full_like(batch["input_ids"], -1)
        for line, question in enumerate(asked):
            targets[line, question.places] = torch.tensor(question.answers)
        logits = model(**{name: tensor.to(device) for name, tensor in batch.items()}).logits
        return summed_loss(logits[targets >= 0], targets[targets >= 0].to(device))

    with evaluating(model):
        at_once = rows_at_once(model, longest, BATCH_TOKENS) * longest
        for group in by_length([question.row for question in questions], at_once):
            asked = questions[done : done + len(group)]
            pieces = in_halves(len(asked), partial(loss_of, asked), "records", pace)
            total += sum(loss for _, loss in pieces)
            tokens += sum(len(question.places) for question in asked)
            done += len(group)
            if on_progress is not None:
                on_progress(done, len(rows))
    loss = _mean(total, tokens)
    protocol = {
        "data": records.description,
        "split": records.description.get("split"),
        "join": None,
        "window": seq_len,
        "share": share,
        "tokens": tokens,
        "read_tokens": sum(len(row.ids) for row in rows),
        "samples": len(rows),
        "truncated": sum(row.truncated for row in rows),
        "max_tokens": max_tokens,
        "dtype": str(dtype).removeprefix("torch."),
        "device": device.type,
        "masking": "every chosen token becomes the mask token; positions drawn by the caller's generator",
    }
    return MaskedLoss(loss, _exp(loss), tokens, len(rows), protocol)


def _rows(records: Records, tokenizer: Any, seq_len: int, max_tokens: int | None) -> list[Row]:
    rows: list[Row] = []
    read = 0
    for text in single_records(records):
        row = encode(text, tokenizer, seq_len)
        if 0 not in row.special:
            continue
        read += len(row.ids)
        if rows and max_tokens is not None and read > max_tokens:
            break
        rows.append(row)
    if not rows:
        source = records.description.get("source", "records")
        raise DataError(f"{source}: no record has a token that can be masked; give text")
    return rows


def _question(row: Row, mask_token: int, share: float, generator: torch.Generator) -> _Question:
    text = [place for place, special in enumerate(row.special) if not special]
    count = max(1, round(share * len(text)))
    places = [text[i] for i in torch.randperm(len(text), generator=generator)[:count].tolist()]
    ids = list(row.ids)
    for place in places:
        ids[place] = mask_token
    return _Question(row._replace(ids=ids), places, [row.ids[place] for place in places])


def _mean(total: float, tokens: int) -> float:
    if not math.isfinite(total):
        raise NonFiniteError(
            f"the loss of {tokens} tokens is {total}; look for NaN or infinity in the weights"
        )
    return total / tokens


def _exp(nll: float) -> float:
    """exp(nll), infinite where it is too large to say."""
    return math.exp(nll) if nll < 700 else math.inf
