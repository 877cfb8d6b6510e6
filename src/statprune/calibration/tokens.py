"""Texts → token ids: one long stream, or one row a record."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from statprune.calibration.cells import Text
from statprune.calibration.records import JOIN, Records
from statprune.errors import DataError


class Row(NamedTuple):
    """The token ids of one sample, without padding.

    Attributes:
        ids: Token ids, special tokens included.
        types: Token type ids of the same length, or None where the tokenizer makes none.
        special: 1 where the tokenizer put a special token, 0 for text; of the same length.
        truncated: Whether the sample was longer.
    """

    ids: list[int]
    types: list[int] | None
    special: list[int]
    truncated: bool


@dataclass(frozen=True)
class TokenStream:
    """The ids of records joined to one text.

    Attributes:
        ids: (t,) int64.
        beginning_of_text: Whether the tokenizer put its beginning-of-text token first.
        join: What stands between two records; None for token ids.
        records_read: How many of the records were read.
        is_cut: Whether the last record read was cut, being longer than the pool.
        pool: What was read, in words.
        source: Where the records came from, in words.
    """

    ids: Tensor
    beginning_of_text: bool
    join: str | None
    records_read: int
    is_cut: bool
    pool: str
    source: str

    def windows(self, seq_len: int) -> Tensor:
        """(n, seq_len): all windows without overlap, from the start; the tail is dropped.

        Raises:
            DataError: There is not even one.
        """
        count = len(self.ids) // seq_len
        if count == 0:
            message = f"{self.source}: {len(self.ids)} tokens, but one window needs {seq_len}"
            raise DataError(f"{message}; give more text or a shorter sequence length")
        return self.ids[: count * seq_len].view(count, seq_len)


def token_stream(
    records: Records, tokenizer: Any, *, characters: int | None = None, join: str = JOIN
) -> TokenStream:
    r"""All records joined with "\n\n" and tokenised once, with the tokenizer's own special tokens.

    The two texts of a pair are joined like two records. Token ids are joined directly.

    Args:
        records: What to read.
        tokenizer: Makes the ids; may be None for token ids.
        characters: Read the first records only, as many as fit in this many characters, but at least one;
            one that is longer alone is cut after its last whole line, or at the limit.
        join: What is put between two records instead.

    Raises:
        DataError: The tokenizer is missing.
    """
    source = str(records.description.get("source", "records"))
    pieces, is_cut = _pool(records, characters)
    total = len(records.texts)
    if pieces and isinstance(pieces[0], tuple) and isinstance(pieces[0][0], int):
        flat = [token for piece in pieces for token in piece]
        pool = f"{total} of {total} records"
        return TokenStream(torch.tensor(flat, dtype=torch.int64), False, None, total, False, pool, source)
    text = join.join(piece if isinstance(piece, str) else join.join(map(str, piece)) for piece in pieces)
    require_tokenizer(tokenizer, source)
    # verbose=False: the length is meant to exceed the model's; windows are cut from it.
    ids = tokenizer(text, return_attention_mask=False, return_token_type_ids=False, verbose=False)[
        "input_ids"
    ]
    first = getattr(tokenizer, "bos_token_id", None)
    starts = bool(ids) and first is not None and ids[0] == first
    if starts and ids[1:2] == [first]:
        # A chat template has written the token into the text, and the tokenizer has put it there again.
        ids = ids[1:]
    pool = f"{len(pieces)} of {total} records, {len(text)} characters"
    return TokenStream(torch.tensor(ids, dtype=torch.int64), starts, join, len(pieces), is_cut, pool, source)


def single_records(records: Records) -> list[Text]:
    """One text a sample: the records, or the lines of prose, without line ends, those with text in them.

    Raises:
        DataError: None has text.
    """
    texts: list[Text] = []
    for text in records.texts:
        if not isinstance(text, str):
            texts += [text] if any(str(piece).strip() for piece in text) else []
        elif records.layout == "document":
            texts += [line.rstrip("\r") for line in text.split("\n") if line.strip()]
        elif text.strip():
            texts.append(text.rstrip("\r\n"))
    if not texts:
        source = records.description.get("source", "records")
        raise DataError(f"{source}: no record has text in it; give at least one")
    return texts


def encode(text: Text, tokenizer: Any, seq_len: int) -> Row:
    """One record with the model's own special tokens, truncated to `seq_len`.

    Raises:
        DataError: The tokenizer is missing, or `seq_len` has no room for text beside the special tokens.
    """
    if isinstance(text, tuple) and isinstance(text[0], int):
        ids = [int(token) for token in text]
        return Row(ids[:seq_len], None, [0] * min(len(ids), seq_len), len(ids) > seq_len)
    require_tokenizer(tokenizer, "a record")
    first, second = text if isinstance(text, tuple) else (text, None)
    added = tokenizer.num_special_tokens_to_add(pair=second is not None)
    if seq_len <= added:
        message = f"sequence length {seq_len}: no room for text beside {added} special tokens"
        raise DataError(f"{message}; take at least {added + 1}")
    options = {"return_attention_mask": False, "return_special_tokens_mask": True, "verbose": False}
    encoded = tokenizer(first, second, **options)
    is_long = len(encoded["input_ids"]) > seq_len
    if is_long:
        encoded = tokenizer(first, second, truncation=True, max_length=seq_len, **options)
    types = encoded.get("token_type_ids")
    return Row(list(encoded["input_ids"]), types, list(encoded["special_tokens_mask"]), is_long)


def pad(rows: list[Row], tokenizer: Any) -> dict[str, Tensor]:
    """(rows, longest): input_ids, attention_mask and token_type_ids, padded on the right.

    The mask tells padding from text, so a tokenizer without a padding token is padded with id 0.
    """
    longest = max(len(row.ids) for row in rows)
    token = getattr(tokenizer, "pad_token_id", None) or 0
    batch = {
        "input_ids": torch.tensor([row.ids + [token] * (longest - len(row.ids)) for row in rows]),
        "attention_mask": torch.tensor([[1] * len(row.ids) + [0] * (longest - len(row.ids)) for row in rows]),
    }
    if all(row.types is not None for row in rows):
        types = [(row.types or []) + [0] * (longest - len(row.ids)) for row in rows]
        batch["token_type_ids"] = torch.tensor(types)
    return batch


def require_tokenizer(tokenizer: Any, place: str) -> None:
    """Nothing, when there is a tokenizer.

    Raises:
        DataError: There is none.
    """
    if tokenizer is None:
        message = f"{place}: text, and a tokenizer that is missing"
        raise DataError(f"{message}; pass the model's tokenizer, or give token ids")


def _pool(records: Records, characters: int | None) -> tuple[list[Text], bool]:
    if characters is None:
        return list(records.texts), False
    pieces: list[Text] = []
    used = 0
    for text in records.texts:
        length = (
            len(text)
            if isinstance(text, str)
            else sum(len(piece) for piece in text if isinstance(piece, str))
        )
        if used + length > characters:
            break
        used += length + len(JOIN)
        pieces.append(text)
    if pieces or not isinstance(records.texts[0], str):
        return pieces or [records.texts[0]], False
    head = records.texts[0][:characters]
    return [head[: head.rfind("\n") + 1] or head], True
