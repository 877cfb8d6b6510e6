"""What came out: how far the outputs of a refitted model are from the dense one's."""

from collections.abc import Sequence
from itertools import islice

import torch
from transformers import PreTrainedModel

from statprune.anatomy.lookup import Anatomy
from statprune.calibration.batches import Batch
from statprune.calibration.share import Share
from statprune.calibration.stream import Stream
from statprune.engine.divergence import PROBE_TOKENS, UNSURE, Outputs, first_of, held_out, taken
from statprune.engine.trace import Trace
from statprune.engine.unsure import least_sure


def note_divergence(
    model: PreTrainedModel,
    anatomy: Anatomy,
    batches: Sequence[Batch],
    own: Share,
    dense: Stream,
    thin: Stream,
    trace: Trace,
) -> None:
    """Note how far the outputs are from the dense ones, on the samples for that; the first rank compares.

    `own` is this process's part of `batches`; `dense` and `thin` are the streams of both models behind the
    last block: first those of that part, then of what was added. `trace.damage` is what is measured.
    """
    ranks = anatomy.ranks
    if trace.damage == UNSURE:
        rows = least_sure(model, anatomy, batches, own, islice(dense.hidden, len(own.pieces)))
    else:
        rows = first_of(batches, held_out(batches), PROBE_TOKENS)
    used = [number for number, each in enumerate(rows) if len(each)]
    if not used:
        return
    pieces = [
        (piece.batch, [stream.hidden[n][chosen] for stream in (dense, thin)])
        for n, (piece, chosen) in enumerate(zip(own.pieces, own.rows(rows), strict=True))
        if len(chosen)
    ]
    found = [each for part in ranks.collected(pieces) for each in part]
    told = None
    if found:
        before, after = (
            [torch.cat([both[which] for batch, both in found if batch == number]) for number in used]
            for which in (0, 1)
        )
        outputs = Outputs(model, anatomy, taken(batches, rows), before)
        told = outputs.divergence(after)
    trace.divergence = ranks.same(told)
