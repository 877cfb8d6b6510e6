"""More samples of the same texts: each begins as one sample and goes on as another.

Where calibration tokens are few, fits follow the chance of which contexts they have seen. Tokens in other
contexts cost nothing but the time to run them: of texts alone, since what comes together from two of them is
still a row of tokens.
"""

from collections.abc import Sequence

import torch

from statprune.calibration.batches import MASKS, Batch, samples_in

TEXTS = {"input_ids", "attention_mask", "token_type_ids"}
"""Inputs that have a number for each token, and that can be joined of two samples."""

WANTED = {"decoder": 64, "encoder": 128}
"""Tokens for each number of a hidden state: where there are as many, nothing is added.

A decoder's token has a context of its own, an encoder's shares it with its sample.
"""

LEAST = 64
"""Where there would not be as many with all copies, nothing is added: only carriers' fits gain by it."""

COPIES = 3
"""Times as many samples as there are, at most, that are added."""

GOLDEN = (5**0.5 - 1) / 2
"""Multiples of it, less their whole part, lie evenly between 0 and 1, however many are taken."""


def spliced(batches: Sequence[Batch], kind: str, width: int) -> list[Batch]:
    """As many samples more as make enough tokens for hidden states of `width` numbers, of that kind of model.

    That is up to COPIES times as many as there are: in the first copy each sample of a batch goes on as the
    next one, in the second as the one behind that, from a token that both have; which, differs from sample to
    sample, and is the same in every run. A copy that would join a sample with itself is left out. None are
    added unless all batches are texts padded on the right.
    """
    wanted = WANTED.get(kind, 0) * width
    if not wanted or not all(map(_joinable, batches)):
        return []
    tokens = sum(int(batch[MASKS[0]].sum()) for batch in batches)
    if (1 + COPIES) * tokens < LEAST * width:
        return []
    found, seen = [], 0
    for copy in range(1, 1 + min(COPIES, -(-wanted // tokens) - 1)):
        for batch in batches:
            count = samples_in(batch)
            if copy < count:
                found.append(_joined(batch, copy, seen))
                seen += count
    return found


def _joinable(batch: Batch) -> bool:
    """Whether it holds texts alone, padded on the right."""
    mask = batch.get(MASKS[0])
    if mask is None or mask.ndim != 2 or not set(batch) <= TEXTS:
        return False
    shapes = {value.shape for value in batch.values()}
    return len(shapes) == 1 and bool((mask[:, 1:] <= mask[:, :-1]).all())


def _joined(batch: Batch, behind: int, seen: int) -> Batch:
    """Each sample's beginning, and the rest of the one `behind` it; `seen` samples were joined before."""
    mask = batch[MASKS[0]]
    count, length = mask.shape
    rows = torch.arange(count, device=mask.device)
    other = (rows + behind) % count
    real = mask.sum(dim=1)
    # At least one token of either: the first one is often the model's own.
    shared = torch.minimum(real, real[other])
    share = (GOLDEN * (rows + seen + 1).double()) % 1
    cut = 1 + (share * (shared - 1).clamp(min=0)).long()
    begun = torch.arange(length, device=mask.device) < cut[:, None]
    return {name: torch.where(begun, value, value[other]) for name, value in batch.items()}
