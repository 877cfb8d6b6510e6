"""What fits see besides where calibration tokens are few: samples that are joined of two.

With few tokens fits follow the chance of which contexts these were seen in, carriers' most of all, which are
left out for that. More contexts of the same texts cost nothing but the time to run them.

Source: docs/decisions/0012-spliced-samples.md.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from statprune.anatomy.lookup import Anatomy
from statprune.calibration.batches import MASKS, Batch
from statprune.calibration.splice import can_be_spliced, spliced
from statprune.engine.carriers import ENOUGH, worthwhile
from statprune.engine.divergence import NUMBERS, every_row, held_out

COPIES = 4
"""Samples that are added for each one, at most."""

FEWEST = 12
"""Tokens for each number of a hidden state; with fewer, the fits of whole sites follow chance."""


def wanted_of(unit: str, *, of_tokens: bool) -> int:
    """Below how many tokens for each number of a hidden state fits see samples besides.

    ENOUGH for carriers, where each sample has one output; FEWEST, where each token has outputs that are
    numbers; 0 where each has choices: it has a context of its own, too, and little comes of more.

    Args:
        unit: what a divergence of the outputs is, a constant of engine/divergence.py.
        of_tokens: whether each token has outputs of its own.
    """
    if of_tokens:
        return FEWEST if unit == NUMBERS else 0
    return ENOUGH


def added_to(anatomy: Anatomy, batches: Sequence[Batch], wanted: int) -> list[Batch]:
    """What fits see besides these samples: for each that is not held out as many as make tokens enough.

    Enough is `wanted` for each number of a hidden state, and COPIES the most. Where no carrier has its tokens
    even so, COPIES if there are fewer than FEWEST for each number, and else nothing; nothing either where
    samples cannot be joined.
    """
    if wanted == 0 or not can_be_spliced(batches):
        return []
    rows = [
        numbers[~torch.isin(numbers, apart)]
        for numbers, apart in zip(every_row(batches), held_out(batches), strict=True)
    ]
    tokens, joined = _tokens(batches, every_row(batches)), _tokens(batches, rows)
    missing = wanted * anatomy.hidden_size - tokens
    if missing <= 0 or joined == 0:
        return []
    copies = min(COPIES, -(-missing // joined))
    after = tokens + copies * joined
    if not any(worthwhile(anatomy.blocks[site.block], site, after) for site in anatomy.sites):
        copies = COPIES if tokens < FEWEST * anatomy.hidden_size else 0
    return spliced(batches, rows, copies)


def _tokens(batches: Sequence[Batch], rows: Sequence[Tensor]) -> int:
    return sum(int(batch[MASKS[0]][each].sum()) for batch, each in zip(batches, rows, strict=True))
