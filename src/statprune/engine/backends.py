"""What activations are summed up in before they are factored."""

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from transformers import PreTrainedModel

from statprune.anatomy.lookup import Anatomy
from statprune.calibration.batches import Batch, samples_in
from statprune.calibration.share import exact
from statprune.engine.measure import MakeAccumulator
from statprune.engine.trial import least_read, tokens_by_stack
from statprune.linalg.accumulator import Accumulator
from statprune.linalg.gram import Gram
from statprune.linalg.sketch import CountSketch, GaussianSketch
from statprune.linalg.tall_qr import TallQR

Backend = Literal["gram", "qr", "gaussian", "countsketch"]

ROWS_PER_SAMPLE = 100
"""Rows of a sketch per calibration sample, as in the authors' scripts (STAT, section 5)."""


def rows_seen(backend: Backend, *, samples: int, tokens: int) -> int:
    """Rows that a factorisation gets to see: all tokens, or those of the sketch."""
    return tokens if backend in ("gram", "qr") else min(ROWS_PER_SAMPLE * samples, tokens)


ROWS_FOR_FLOAT32 = 4
"""So many tokens a column, and the Gram matrix of float32 activations is summed from products in float32."""


def maker_of(
    model: PreTrainedModel,
    anatomy: Anatomy,
    batches: Sequence[Batch],
    backend: Backend = "gram",
    seed: int = 0,
) -> MakeAccumulator:
    """What `maker` makes for a model and its calibration data: in float64 throughout where tokens are few."""
    return maker(
        backend,
        samples=sum(map(samples_in, batches)),
        tokens=tokens_by_stack(batches)[0],
        generator=torch.Generator().manual_seed(seed),
        device=model.device,
        dtype=torch.float64 if exact(batches) else model.dtype,
        least=least_read(anatomy, batches),
    )


def maker(
    backend: Backend,
    *,
    samples: int,
    tokens: int,
    generator: torch.Generator,
    device: torch.device,
    dtype: torch.dtype = torch.float64,
    least: float | None = None,
) -> MakeAccumulator:
    """A function that makes an empty accumulator, on `device`, for a number of columns.

    `gram` (float64 sums) and `qr` are exact up to rounding. Where the activations' `dtype` is coarser than
    float64 and there are ROWS_FOR_FLOAT32 tokens a column, products are formed in float32: what that changes
    in the outputs of the pruned model is of the size of what float32 activations change there
    (docs/decisions/0008-precision-of-products.md); `least` is how many a site sees where some see fewer than
    all, as the stacks of an encoder with a decoder do, and experts. With fewer tokens a site may lack rank,
    which only float64 tells from noise; the sketches, as in the paper, hold 100 rows a sample
    (but not more than `tokens`) and are exact up to O(1 / sqrt(rows)) in the Gram matrix's entries, drawn
    from `generator`. Units beyond the rows of a sketch cannot be told apart.
    """
    if backend == "gram":

        def gram(columns: int) -> Gram:
            rows = tokens if least is None else least
            many = dtype != torch.float64 and rows >= ROWS_FOR_FLOAT32 * columns
            return Gram(columns, device=device, product_dtype=torch.float32 if many else None)

        return gram
    if backend == "qr":
        return partial(TallQR, device=device)
    sketch = GaussianSketch if backend == "gaussian" else CountSketch

    def make(columns: int) -> Accumulator:
        rows = rows_seen(backend, samples=samples, tokens=tokens)
        # Its own generator: what one site draws must not depend on how another's batches come in between.
        seed = int(torch.randint(2**62, (), generator=generator))
        return sketch(columns, rows, generator=torch.Generator().manual_seed(seed), device=device)

    return make
