"""Records → batches of token ids, by one documented rule for each kind of model."""

from collections.abc import Iterable, Mapping, Sequence
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
GIVEN_RULE = "all batches as given, in their order, masks respected"

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Samples:
    """Token batches, and how they came about.

    Attributes:
        batches: Each has input_ids and attention_mask, both (rows, length) int64, and token_type_ids of
            the same shape where the tokenizer makes them.
        protocol: What determines the batches, ready for JSON.
        tokens: Real tokens in all batches, padding not counted.
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
    _require(samples, seq_len)
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
    _require(samples, seq_len)
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


def given(batches: Iterable[Any], *, limit: int | None = None) -> Samples:
    """Batches that the caller supplies, all used, in order.

    Args:
        batches: Mappings with input_ids (rows, length) and, if there is padding, attention_mask; or lists
            of token ids, one a sample.
        limit: Use the first `limit` rows only.

    Raises:
        DataError: A batch has no ids, a wrong shape or type, or a row without a real token; with its number.
    """
    kept: list[Batch] = []
    left_out: set[str] = set()
    rows = 0
    for number, element in enumerate(batches, start=1):
        if limit is not None and rows >= limit:
            break
        batch = _checked(element, f"batch {number}")
        if isinstance(element, Mapping):
            left_out.update(set(element) - set(batch))
        room = None if limit is None else limit - rows
        kept.append({name: tensor[:room] for name, tensor in batch.items()})
        rows += len(kept[-1]["input_ids"])
    if not kept:
        raise DataError("batches given: none; give at least one batch with input_ids")
    tokens = sum(int(batch["attention_mask"].sum()) for batch in kept)
    notes = (f"not used from the batches: {', '.join(sorted(left_out))}",) if left_out else ()
    protocol = {
        "rule": GIVEN_RULE,
        "samples": rows,
        "asked": limit,
        "seq_len": max(batch["input_ids"].shape[1] for batch in kept),
        "tokens": tokens,
        "seed": None,
        "source": {"source": "memory", "kind": "batches"},
        "join": None,
    }
    return Samples(kept, protocol, tokens, notes)


def check_ids(samples: Samples, vocab_size: int) -> None:
    """Nothing, when every token id is one of the model's vocabulary.

    Raises:
        DataError: An id is negative or not below `vocab_size`.
    """
    for number, batch in enumerate(samples.batches, start=1):
        for token in (int(batch["input_ids"].min()), int(batch["input_ids"].max())):
            if not 0 <= token < vocab_size:
                message = (
                    f"batch {number}: token id {token}, but the model's vocabulary has {vocab_size} tokens"
                )
                raise DataError(f"{message}; use the model's own tokenizer")


def _require(samples: int, seq_len: int) -> None:
    if samples < 1 or seq_len < 1:
        raise DataError(f"{samples} samples of {seq_len} tokens asked; ask for at least 1 of at least 1")


def _checked(element: Any, place: str) -> Batch:
    ids = _ids(element, place)
    batch = {"input_ids": ids.long(), "attention_mask": torch.ones_like(ids, dtype=torch.int64)}
    if not isinstance(element, Mapping):
        return batch
    for name in ("attention_mask", "token_type_ids", "position_ids"):
        tensor = element.get(name)
        if tensor is None:
            continue
        if not isinstance(tensor, Tensor) or tensor.shape != ids.shape or tensor.is_floating_point():
            found = (
                f"{tuple(tensor.shape)} {tensor.dtype}"
                if isinstance(tensor, Tensor)
                else type(tensor).__name__
            )
            message = f"{place}: {name} is {found}; input_ids is {tuple(ids.shape)}"
            raise DataError(f"{message}; give a tensor of integers of that shape")
        batch[name] = tensor.long()
    mask = batch["attention_mask"]
    if bool(((mask != 0) & (mask != 1)).any()):
        raise DataError(
            f"{place}: attention_mask holds {int(mask.max())}; give 1 for real tokens, 0 for padding"
        )
    if bool((mask.sum(dim=1) == 0).any()):
        raise DataError(f"{place}: a row whose attention_mask is all 0; drop rows without a real token")
    return batch


def _ids(element: Any, place: str) -> Tensor:
    """(rows, length) integers from a mapping, or (1, length) from a list of token ids."""
    if isinstance(element, list | tuple):
        if not element or not all(isinstance(t, int) and not isinstance(t, bool) for t in element):
            raise DataError(f"{place}: not a list of token ids; give integers, at least one")
        return torch.tensor([element], dtype=torch.int64)
    ids = element.get("input_ids") if isinstance(element, Mapping) else None
    if not isinstance(ids, Tensor):
        found = (
            f"keys {', '.join(map(str, element))}" if isinstance(element, Mapping) else type(element).__name__
        )
        raise DataError(f"{place}: {found}; give a mapping with the tensor input_ids, or a list of token ids")
    if ids.dim() != 2 or ids.numel() == 0 or ids.is_floating_point() or ids.dtype == torch.bool:
        found = f"{tuple(ids.shape)} {ids.dtype}"
        raise DataError(
            f"{place}: input_ids is {found}; give integers of shape (rows, length), none of them 0"
        )
    return ids
