"""Which part of the calibration samples each of several processes takes: contiguous, no sample twice."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from statprune.anatomy.ranks import Ranks
from statprune.calibration.batches import MASKS, Batch, samples_in

EXACT = 2**13
"""Up to so many tokens products are formed in float64: then it makes no difference how batches are cut.

But for those of a refit's wide sites (`linalg.gram.moment_dtype`): their last digits depend on the batches.
"""

UNEVEN = 1.25
"""How much more than its even share a process may take, for batches to stay whole where tokens are few."""


@dataclass(frozen=True)
class Piece:
    """Samples `start` to `stop` of batch number `batch`."""

    batch: int
    start: int
    stop: int


@dataclass(frozen=True)
class Share:
    """The pieces that one process takes, in order; all batches where it is alone."""

    pieces: tuple[Piece, ...]

    def of(self, batches: Sequence[Batch]) -> list[Batch]:
        """The batches that are made of them."""
        return [_cut(batches[each.batch], each) for each in self.pieces]

    def rows(self, rows: Sequence[Tensor]) -> list[Tensor]:
        """Of rows chosen in each batch, (count,) int64, those in each piece, counted from where it starts."""
        found = []
        for each in self.pieces:
            here = rows[each.batch]
            found.append(here[(here >= each.start) & (here < each.stop)] - each.start)
        return found


def exact(batches: Sequence[Batch]) -> bool:
    """Whether there are so few tokens that products are formed in float64, but for a refit's wide sites."""
    return sum(int(batch[mask].sum()) for batch in batches for mask in MASKS if mask in batch) <= EXACT


def share(batches: Sequence[Batch], ranks: Ranks) -> Share:
    """What this process takes of `batches`.

    Whole batches, so that products of float32 are those of one process; but where tokens are few and some
    process would take much more than another, or where there are fewer batches than processes, as many
    samples as the others, or one more.
    """
    rows = [samples_in(batch) for batch in batches]
    sizes = [rows[n] * batch[MASKS[0]].shape[1] for n, batch in enumerate(batches)]
    owners = _owners(sizes, ranks.size)
    most = max(sum(size for size, owner in zip(sizes, owners, strict=True) if owner == n) for n in owners)
    even = most * ranks.size <= UNEVEN * sum(sizes)
    if ranks.size == 1 or (len(batches) >= ranks.size and (even or not exact(batches))):
        return Share(tuple(Piece(n, 0, rows[n]) for n, owner in enumerate(owners) if owner == ranks.rank))
    first, end = (sum(rows) * rank // ranks.size for rank in (ranks.rank, ranks.rank + 1))
    pieces, seen = [], 0
    for number, count in enumerate(rows):
        start, stop = max(0, first - seen), min(count, end - seen)
        if start < stop:
            pieces.append(Piece(number, start, stop))
        seen += count
    return Share(tuple(pieces))


def _owners(sizes: Sequence[int], ranks: int) -> list[int]:
    """The rank of each batch: contiguous, about as many tokens each, none without."""
    if not sizes:
        return []
    ends = torch.tensor(sizes, dtype=torch.float64).cumsum(0)
    middles = (ends - torch.tensor(sizes) / 2) / ends[-1] * ranks
    found = [min(ranks - 1, int(middle)) for middle in middles]
    if len(set(found)) < ranks:
        found = [number * ranks // len(sizes) for number in range(len(sizes))]
    return found


def _cut(batch: Batch, piece: Piece) -> Batch:
    if piece.start == 0 and piece.stop == samples_in(batch):
        return batch
    return {name: value[piece.start : piece.stop] for name, value in batch.items()}
