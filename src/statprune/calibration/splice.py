"""More samples of the same texts: each begins as one sample and goes on as another."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from statprune.calibration.batches import MASKS, Batch

TEXTS = {"input_ids", "attention_mask", "token_type_ids"}
"""Inputs that have a number for each token, and that can be joined of two samples."""

GOLDEN = (5**0.5 - 1) / 2
"""Multiples of it, less their whole part, lie evenly between 0 and 1, however many are taken."""


def can_be_spliced(batches: Sequence[Batch]) -> bool:
    """Whether all batches are texts, and nothing but texts, padded on the right, with the same inputs."""
    return len({frozenset(batch) for batch in batches}) == 1 and all(map(_joinable, batches))


def _joinable(batch: Batch) -> bool:
    mask = batch.get(MASKS[0])
    if mask is None or mask.ndim != 2 or not set(batch) <= TEXTS:
        return False
    shapes = {value.shape for value in batch.values()}
    return len(shapes) == 1 and bool((mask[:, 1:] <= mask[:, :-1]).all())


def spliced(batches: Sequence[Batch], rows: Sequence[Tensor], copies: int) -> list[Batch]:
    """For each of these rows `copies` samples that begin as it does and go on as another of them.

    Which other one, and from which token, that both have, is counted over all batches: it does not depend on
    how samples are cut into batches, and is the same in every run. The others lie far apart, since neighbours
    may have a text in common. A sample is not joined with itself, so that there may be fewer.

    Args:
        batches: `can_be_spliced`.
        rows: of each batch, (count,) int64.
        copies: at least 0.
    """
    sizes = [len(each) for each in rows if len(each)]
    count, length = sum(sizes), max(batch[MASKS[0]].shape[1] for batch in batches)
    every = {
        name: torch.cat(
            [
                pad(batch[name][each], (0, length - batch[name].shape[1]))
                for batch, each in zip(batches, rows, strict=True)
            ]
        )
        for name in batches[0]
    }
    behind = max(1, count // (copies + 1))
    found: list[Batch] = []
    for copy in range(1, copies + 1):
        if copy * behind % max(1, count) == 0:
            break
        joined = _joined(every, copy * behind, (copy - 1) * count)
        pieces = {name: torch.split(value, sizes) for name, value in joined.items()}
        for number in range(len(sizes)):
            batch = {name: value[number] for name, value in pieces.items()}
            longest = int(batch[MASKS[0]].sum(dim=1).max())
            found.append({name: value[:, :longest] for name, value in batch.items()})
    return found


def _joined(every: Batch, behind: int, before: int) -> Batch:
    """Each sample's beginning, and the rest of the one `behind` it; `before` samples were joined before."""
    mask = every[MASKS[0]]
    count, length = mask.shape
    number = torch.arange(count, device=mask.device)
    other = (number + behind) % count
    real = mask.sum(dim=1)
    # At least one token of either: the first one is often the model's own.
    shared = torch.minimum(real, real[other])
    share = (GOLDEN * (number + before + 1).double()) % 1
    cut = 1 + (share * (shared - 1).clamp(min=0)).long()
    begun = torch.arange(length, device=mask.device) < cut[:, None]
    return {name: torch.where(begun, value, value[other]) for name, value in every.items()}
