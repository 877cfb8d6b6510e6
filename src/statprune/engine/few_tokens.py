"""What fits see besides where calibration tokens are few: samples that are joined of two.

With few tokens fits follow the chance of which contexts these were seen in, carriers' most of all, which are
left out for that. More contexts of the same texts cost nothing but the time to run them.

Source: docs/decisions/0012-spliced-samples.md.
"""

from collections.abc import Sequence

import torch

from statprune.anatomy.lookup import Anatomy
from statprune.calibration.batches import MASKS, Batch
from statprune.calibration.splice import can_be_spliced, spliced
from statprune.engine.carriers import ENOUGH, worthwhile
from statprune.engine.divergence import every_row, held_out

COPIES = 4
"""Samples that are added for each one, at most."""


def added_to(anatomy: Anatomy, batches: Sequence[Batch], *, of_tokens: bool) -> list[Batch]:
    """What fits see besides these samples, so that carriers have tokens ENOUGH for hidden states.

    Up to COPIES for each sample that is not held out. Nothing, where tokens are enough, where each token has
    outputs of its own (`of_tokens`), where samples cannot be joined, and where no carrier would have tokens
    enough even so.
    """
    if of_tokens or not can_be_spliced(batches):
        return []
    held = held_out(batches)
    rows = [
        numbers[~torch.isin(numbers, apart)] for numbers, apart in zip(every_row(batches), held, strict=True)
    ]
    tokens = sum(int(batch[MASKS[0]].sum()) for batch in batches)
    joined = sum(int(batch[MASKS[0]][each].sum()) for batch, each in zip(batches, rows, strict=True))
    missing = ENOUGH * anatomy.hidden_size - tokens
    if missing <= 0 or joined == 0:
        return []
    copies = min(COPIES, -(-missing // joined))
    after = tokens + copies * joined
    if not any(worthwhile(anatomy.blocks[site.block], site, after) for site in anatomy.sites):
        return []
    return spliced(batches, rows, copies)
