"""Records → batches of token ids, by one documented rule for each kind of model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from statprune.calibration.records import Records
from statprune.calibration.tokens import Row, encode, pad, single_records, token_stream
from statprune.errors import DataError

POOL_FACTOR = 16
CHARACTERS_PER_TOKEN = 8

WINDOWS_RULE = (
    "records joined with two newlines, tokenised once with the tokenizer's own special tokens, cut into "
    "windows without overlap, the tail dropped; windows drawn at random without replacement"
)
SENTENCES_RULE = (
    "one record a sample (of prose, one non-blank line), empty ones skipped, with the tokenizer's own "
    "special tokens, truncated; drawn at random without replacement, batched by length, padded on the right"
)

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Samples:
    """Batches, and how they came about.

    Attributes:
        batches: Of text each has input_ids and attention_mask, both (rows, length) int64, and token_type_ids
            of the same shape where the tokenizer makes them; else as `calibration.batches` says.
        protocol: What determines the batches, ready for JSON.
        tokens: Real tokens of the first stack in all batches, padding not counted.
        notes: What the user should know, one sentence each.
    """

    batches: list[Batch]
    protocol: dict[str, Any]
    tokens: int
    notes: tuple[str, ...] = ()


def windows(
    records: Records,
    tokenizer: Any,
    *,
    samples: int,
    seq_len: int,
    generator: torch.Generator,
    batch_tokens: int = 8192,
) -> Samples:
    """Random windows of joined text, for decoders: `samples` of `seq_len` tokens, in drawn order.

    Of a large source only a pool is read: its first records, up to POOL_FACTOR x samples x seq_len x 8
    characters, cut between records (one longer than that: after a line). The protocol says what the pool was.

    Args:
        records: Texts, or token ids, which are joined as they are.
        tokenizer: Makes the ids; not used for token ids.
        samples: Windows asked for.
        seq_len: Tokens in a window.
        generator: Draws the windows.
        batch_tokens: Tokens in a batch, at most, unless one window is longer.

    Raises:
        DataError: The text is shorter than one window, or the tokenizer is missing.
    """
    require_some(samples, seq_len)
    pool = POOL_FACTOR * samples * seq_len * CHARACTERS_PER_TOKEN
    stream = token_stream(records, tokenizer, characters=pool)
    available = stream.windows(seq_len)
    drawn = torch.randperm(len(available), generator=generator, device=generator.device)[:samples].cpu()
    rows = available[drawn]
    batches = [
        {"input_ids": ids.clone(), "attention_mask": torch.ones_like(ids)}
        for ids in torch.split(rows, max(1, batch_tokens // seq_len))
    ]
    notes = []
    if len(rows) < samples:
        notes.append(f"{samples} windows asked, {len(available)} available; all are used")
    if stream.records_read < len(records.texts) or stream.is_cut:
        notes.append(f"drawn from a pool: {stream.pool}")
    protocol = {
        "rule": WINDOWS_RULE,
        "samples": len(rows),
        "asked": samples,
        "seq_len": seq_len,
        "tokens": rows.numel(),
        "seed": generator.initial_seed(),
        "source": records.description,
        "join": stream.join,
        "beginning_of_text": stream.beginning_of_text,
        "available": len(available),
        "pool": stream.pool,
    }
    return Samples(batches, protocol, rows.numel(), tuple(notes))


def sentences(
    records: Records,
    tokenizer: Any,
    *,
    samples: int,
    seq_len: int,
    generator: torch.Generator,
    batch_tokens: int = 8192,
) -> Samples:
    """Random records, one a sample, for encoders; pairs stay pairs; longest batches first.

    Args:
        records: Texts, pairs or token ids. Line ends at the end of a text are dropped.
        tokenizer: Adds the model's own special tokens; not used for token ids.
        samples: Records asked for.
        seq_len: Tokens of a sample, special tokens included; longer ones are truncated.
        generator: Draws the records.
        batch_tokens: Tokens in a batch, padding included, at most, unless one sample is longer.

    Raises:
        DataError: There is no record with text, `seq_len` has no room for text, or the tokenizer is missing.
    """
    require_some(samples, seq_len)
    texts = single_records(records)
    drawn = torch.randperm(len(texts), generator=generator, device=generator.device)[:samples].tolist()
    rows = [encode(texts[number], tokenizer, seq_len) for number in drawn]
    rows.sort(key=lambda row: -len(row.ids))
    batches = [pad(group, tokenizer) for group in by_length(rows, batch_tokens)]
    tokens = sum(len(row.ids) for row in rows)
    truncated = sum(row.truncated for row in rows)
    notes = []
    if len(rows) < samples:
        notes.append(f"{samples} samples asked, {len(texts)} records available; all are used")
    if truncated:
        notes.append(
            f"{truncated} of {len(rows)} samples were longer than {seq_len} tokens and are truncated"
        )
    protocol = {
        "rule": SENTENCES_RULE,
        "samples": len(rows),
        "asked": samples,
        "seq_len": seq_len,
        "tokens": tokens,
        "seed": generator.initial_seed(),
        "source": records.description,
        "join": None,
        "special_tokens": sum(sum(row.special) for row in rows),
        "available": len(texts),
        "truncated": truncated,
    }
    return Samples(batches, protocol, tokens, tuple(notes))


def by_length(rows: Sequence[Row], batch_tokens: int) -> list[list[Row]]:
    """Rows, longest first, in groups whose padded size is at most `batch_tokens` (or one row)."""
    groups: list[list[Row]] = []
    for row in rows:
        if groups and (len(groups[-1]) + 1) * len(groups[-1][0].ids) <= batch_tokens:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


def require_some(samples: int, seq_len: int) -> None:
    """Raise DataError unless at least one sample, of at least one token, is asked for."""
    if samples < 1 or seq_len < 1:
        raise DataError(f"{samples} samples of {seq_len} tokens asked; ask for at least 1 of at least 1")
