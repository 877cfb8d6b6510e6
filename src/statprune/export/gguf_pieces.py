"""SentencePiece vocabularies: scores from merges, and whether they split text as the merges do.

llama.cpp's `llama` tokenizer knows no merges. It joins, again and again, the two neighbours that make
the token of the best score. That is what the merges say only if they come in the order of the tokens they
make, and if no other neighbours make a token.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

BYTES = frozenset(f"<0x{byte:02X}>" for byte in range(256))
SPACE = "▁"
_NEVER = -1e6
"""The score of a token that no merge makes."""


def prefixes_space(rules: dict[str, Any]) -> bool | None:
    """Whether a text gets a space in front; None where more is done to it than writing spaces as ▁."""
    normalizer, split = rules["normalizer"], rules["pre_tokenizer"]
    steps = [] if normalizer is None else normalizer.get("normalizers", [normalizer])
    if split is not None and split["type"] == "Split" and split["pattern"] == {"String": " "} and steps:
        split = None  # Gemma's: where spaces are written as ▁ there is nothing left to split at
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    prepend = {"type": "Prepend", "prepend": SPACE}
    if split is None and steps in ([prepend, replace], [replace]):
        return bool(steps[0] == prepend)
    plain = split is not None and split["type"] == "Metaspace" and split["replacement"] == SPACE
    if not steps and plain and not split.get("split", True):
        return bool(split["prepend_scheme"] != "never")
    return None


def piece_scores(merges: Sequence[tuple[str, ...]], tokens: Sequence[str]) -> list[float]:
    """For every token minus the place of the first merge that makes it."""
    places: dict[str, int] = {}
    for place, pair in enumerate(merges):
        places.setdefault("".join(pair), place)
    return [-float(places[token]) if token in places else _NEVER for token in tokens]


def check_pieces(
    tokens: Sequence[str],
    scores: Sequence[float],
    merges: Sequence[tuple[str, ...]],
    tokenizer: Any,
    text: str,
    *,
    prefix: bool,
) -> str | None:
    """Why scores cannot say these merges; None where they can, and split `text` as `tokenizer` does."""
    missing = sorted(BYTES - set(tokens))
    if missing:
        return f"it has no token for the byte {missing[0]}"
    by_text = dict(zip(tokens, scores, strict=True))
    order = [by_text["".join(pair)] for pair in merges]
    late = next((place for place in range(1, len(order)) if order[place] > order[place - 1]), None)
    if late is not None:
        return f"merge {late}, {' + '.join(merges[late])}, comes later than others that make the same token"
    numbers = {token: number for number, token in enumerate(tokens)}
    ours = [numbers[piece] for piece in split_by_scores(text, by_text, prefix=prefix)]
    theirs = tokenizer(text, add_special_tokens=False)["input_ids"]
    if ours != theirs:
        place = next((at for at, pair in enumerate(zip(ours, theirs, strict=False)) if len(set(pair)) > 1), 0)
        return (
            f"read by scores a text splits otherwise from token {place} on: "
            f"{[tokens[each] for each in ours[place : place + 3]]}, not "
            f"{[tokens[each] for each in theirs[place : place + 3]]}"
        )
    return None


def split_by_scores(text: str, scores: dict[str, float], *, prefix: bool) -> list[str]:
    """`text` as llama.cpp's `llama` tokenizer splits it, special tokens aside."""
    symbols = list(((" " if prefix else "") + text).replace(" ", SPACE))
    while True:
        joined = [left + right for left, right in pairwise(symbols)]
        found = [(scores[each], -place) for place, each in enumerate(joined) if each in scores]
        if not found:
            break
        place = -max(found)[1]
        symbols[place : place + 2] = [joined[place]]
    pieces = []
    for symbol in symbols:
        pieces += [symbol] if symbol in scores else [f"<0x{byte:02X}>" for byte in symbol.encode()]
    return pieces
