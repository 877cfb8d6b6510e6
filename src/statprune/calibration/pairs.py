"""Records -> what an encoder reads and what its decoder is given: sources and targets."""

from dataclasses import dataclass
from typing import Any

import torch

from statprune.calibration.batches import MASKS
from statprune.calibration.cells import Text
from statprune.calibration.given import DECODER_IDS, IDS, Takes, shifted_right
from statprune.calibration.records import Records
from statprune.calibration.samples import Batch, Samples, require_some
from statprune.calibration.tokens import Row, encode, pad, single_records
from statprune.errors import DataError

_BY = (
    "with the tokenizer's own special tokens, truncated; drawn at random without replacement, batched by "
    "length, padded on the right; the decoder is given the target shifted right behind the model's own "
    "start token"
)
PAIRS_RULE = f"one pair a sample, the first text the source, the second the target, {_BY}"
ECHO_RULE = (
    "one record a sample (of prose, one non-blank line), empty ones skipped, each both source and target, "
    f"{_BY}"
)


@dataclass(frozen=True)
class _Pair:
    source: Row
    target: Row


def pairs(  # noqa: PLR0913 - all but three are named
    records: Records,
    tokenizer: Any,
    takes: Takes,
    *,
    writes: bool,
    samples: int,
    seq_len: int,
    generator: torch.Generator,
    batch_tokens: int = 8192,
) -> Samples:
    """Random records, one a sample, for encoders with a decoder; longest batches first.

    Of a pair the first text is the source and the second the target. A record that is no pair is both, and
    so is a pair where the model does not write: a classifier of pairs reads them as one.

    Args:
        records: Texts, pairs or token ids.
        tokenizer: Adds the model's own special tokens; not used for token ids.
        takes: What the model takes, with the token that its decoder begins with.
        writes: Whether targets are what the model is trained to write.
        samples: Records asked for.
        seq_len: Tokens of a source, and of a target, special tokens included; longer ones are truncated.
        generator: Draws the records.
        batch_tokens: Tokens in a batch, both stacks and padding included, at most, unless one sample is
            longer.

    Raises:
        DataError: There is no record with text, a target is empty, the model names no start token, `seq_len`
            has no room for text, or the tokenizer is missing.
    """
    require_some(samples, seq_len)
    texts = single_records(records)
    source = str(records.description.get("source", "records"))
    drawn = torch.randperm(len(texts), generator=generator, device=generator.device)[:samples].tolist()
    apart = writes and _is_pair(texts[0])
    rows = [_encoded(texts[number], apart, tokenizer, seq_len, source) for number in drawn]
    rows.sort(key=lambda pair: (-len(pair.source.ids), -len(pair.target.ids)))
    batches = [_batch(group, tokenizer, takes, source) for group in _groups(rows, batch_tokens)]
    tokens = sum(len(pair.source.ids) for pair in rows)
    truncated = sum(pair.source.truncated or pair.target.truncated for pair in rows)
    notes = []
    if len(rows) < samples:
        notes.append(f"{samples} samples asked, {len(texts)} records available; all are used")
    if not apart and writes:
        notes.append(
            "no targets: each text is both source and target. Pairs (source, target) calibrate better"
        )
    if truncated:
        notes.append(
            f"{truncated} of {len(rows)} samples were longer than {seq_len} tokens and are truncated"
        )
    protocol = {
        "rule": PAIRS_RULE if apart else ECHO_RULE,
        "samples": len(rows),
        "asked": samples,
        "seq_len": seq_len,
        "tokens": tokens,
        "decoder_tokens": sum(len(pair.target.ids) for pair in rows),
        "seed": generator.initial_seed(),
        "source": records.description,
        "join": None,
        "available": len(texts),
        "truncated": truncated,
    }
    return Samples(batches, protocol, tokens, tuple(notes))


def _is_pair(text: Text) -> bool:
    return isinstance(text, tuple) and isinstance(text[0], str)


def _encoded(text: Text, apart: bool, tokenizer: Any, seq_len: int, place: str) -> _Pair:
    if not (apart and isinstance(text, tuple)):
        row = encode(text, tokenizer, seq_len)
        return _Pair(row, row)
    for part, name in zip(text, ("source", "target"), strict=True):
        if not str(part).strip():
            raise DataError(f"{place}: a pair whose {name} is empty (the other is {_other(text)!r}); drop it")
    first, second = str(text[0]), str(text[1])
    return _Pair(encode(first, tokenizer, seq_len), encode(second, tokenizer, seq_len))


def _other(text: tuple[Any, ...]) -> str:
    return next((str(part)[:40] for part in text if str(part).strip()), "")


def _groups(rows: list[_Pair], batch_tokens: int) -> list[list[_Pair]]:
    """Rows in groups whose padded size is at most `batch_tokens` (or one row)."""
    groups: list[list[_Pair]] = []
    for row in rows:
        if groups:
            group = [*groups[-1], row]
            widest = max(len(each.source.ids) for each in group) + max(len(each.target.ids) for each in group)
            if len(group) * widest <= batch_tokens:
                groups[-1] = group
                continue
        groups.append([row])
    return groups


def _batch(group: list[_Pair], tokenizer: Any, takes: Takes, place: str) -> Batch:
    source = pad([pair.source for pair in group], tokenizer)
    target = pad([pair.target for pair in group], tokenizer)
    batch = {name: value for name, value in source.items() if name in takes.names}
    batch[DECODER_IDS] = shifted_right(target[IDS], takes, place)
    batch[MASKS[1]] = target[MASKS[0]]
    return batch
