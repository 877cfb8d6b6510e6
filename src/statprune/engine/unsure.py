"""The samples on which damage is measured: of choices, those that the dense model is least sure of.

That is where each sample has one choice: labels, or a span. Calibration samples are often what such a model
was trained on. It is sure of most of them, whatever a site loses, and plans that are made by those follow
noise: on samples that it has not seen the divergence is a quarter to a third larger (benchmarks/log.md).
Those that it is least sure of are most like what it has not seen.
"""

from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor
from transformers import PreTrainedModel

from statprune.anatomy.lookup import Anatomy
from statprune.anatomy.ranks import pooled
from statprune.calibration.batches import Batch, samples_in
from statprune.calibration.share import Share, share
from statprune.calibration.stream import advance, before_first_block
from statprune.engine.divergence import (
    PROBE_TOKENS,
    UNSURE,
    judged,
    outputs_of,
    outputs_on_one,
    probe_batches,
    taken,
)
from statprune.engine.progress import Progress, no_progress


@torch.no_grad()
def to_probe(
    model: PreTrainedModel, anatomy: Anatomy, batches: Sequence[Batch], progress: Progress = no_progress
) -> list[Batch]:
    """What a survey of `model` sends through it for every width that it tries; PROBE_TOKENS, or one sample.

    Cost: where each sample has one choice, a forward pass of `batches`, shared by the processes. Memory:
    their hidden states.
    """
    unit, of_tokens = outputs_on_one(model, anatomy, batches[0])
    if unit != UNSURE:
        return probe_batches(batches, of_tokens=of_tokens)
    own = share(batches, anatomy.ranks)
    stream = before_first_block(model, anatomy, own.of(batches))
    for index, block in anatomy.visited():
        advance(stream, block, index)
        progress("ask", index + 1, len(anatomy.blocks))
    return taken(batches, least_sure(model, anatomy, batches, own, stream.hidden))


def least_sure(
    model: PreTrainedModel, anatomy: Anatomy, batches: Sequence[Batch], own: Share, hidden: Iterable[Tensor]
) -> list[Tensor]:
    """The rows of each batch, int64, whose choices have the most entropy; PROBE_TOKENS at most, or one row.

    Args:
        model: the dense one; only its final norm and head run.
        anatomy: its blocks do not run.
        batches: all samples.
        own: the part of this process.
        hidden: what the dense model's last block returns for that part, (rows, length, width) for each piece.
    """
    starts = [0, *accumulate(map(samples_in, batches))]
    found: dict[int, float] = {}
    for piece, batch, states in zip(own.pieces, own.of(batches), hidden, strict=True):
        choices = outputs_of(judged(model), anatomy, batch, states)
        entropy = torch.stack([_entropy(each) for each in choices]).sum(dim=0)
        first = starts[piece.batch] + piece.start
        found |= dict(enumerate(entropy.tolist(), start=first))
    every = pooled(anatomy.ranks, found)
    lengths = torch.cat([batch["attention_mask"].sum(dim=1).cpu() for batch in batches])
    order = sorted(every, key=lambda number: (-every[number], number))
    fitting = int((lengths[order].cumsum(0) <= PROBE_TOKENS).sum())
    chosen = torch.tensor(sorted(order[: max(1, fitting)]))
    return [chosen[(chosen >= start) & (chosen < stop)] - start for start, stop in pairwise(starts)]


def _entropy(logits: Tensor) -> Tensor:
    """Of each row's choice, in nats, (rows,) float64 on the CPU."""
    entropy: Tensor = torch.special.entr(torch.softmax(logits.double(), dim=-1)).sum(dim=-1)
    return entropy.cpu()
