"""Mask tuning: one scalar a kept unit, by least squares on the dense model's outputs.

Source: Kwon et al., "A Fast Post-Training Pruning Framework for Transformers", NeurIPS 2022, arXiv
2204.09656, section 4.3, and its released code. The two stages before it choose units by Fisher information,
which needs gradients and labels; here the strength of a unit's own output chooses instead.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import linear
from transformers import PreTrainedModel

from statprune.anatomy.lookup import Anatomy
from statprune.anatomy.producers import module_at
from statprune.anatomy.sites import Site
from statprune.budget.allocate import Budget
from statprune.budget.plan import Plan
from statprune.calibration.batches import Batch
from statprune.calibration.stream import Stream, advance, before_first_block
from statprune.engine.measure import consumer_weight
from statprune.linalg.gram import CrossGram, Gram
from statprune.linalg.least_squares import ridge
from statprune.surgery.linear import set_weight, weight_of

from .widths import keep_uncorrected, per_unit, staying, strongest, uniform_plan

DAMPING = 1e-6
"""Ridge around 1, as a share of the mean diagonal: enough for units that make the same output."""
LARGEST = 10.0
"""Scalars beyond this are not trusted; the authors' bound."""

Visit = Callable[[Tensor, Tensor], None]
"""Takes, a batch at a time, what a consumer reads (tokens, columns), and the residual stream (tokens, out)
that its output is added to."""


@torch.no_grad()
def mask_tuning(
    model: PreTrainedModel,
    anatomy: Anatomy,
    batches: Sequence[Batch],
    budget: Budget,
    generator: torch.Generator,
) -> Plan:
    """Uniform widths, units by the norm of their output, then a scalar a unit, folded into the consumer.

    Kept are the units of largest ||Z_u W_u^T||_F in the dense model (for a neuron ||Z_j|| ||W_:j||). Then,
    site after site, the scalars make the thin model's residual stream behind the site match the dense one's:
    the target is the dense residual and output less the thin residual, as in the authors' code.

    Differs from it in the choice of units (theirs: Fisher information, with rearrangement) and of widths; in
    the teacher, the dense model, where the code takes one pruned half the way; in tuning the first block's
    heads, which the code leaves out; in fitting no constant beside the heads' scalars, which the code fits
    and drops; and in fitting all tokens in the last feed-forward, where the code takes the first token of
    classifiers. They solve around 1 by LSMR with damping 1; we by Cholesky with a ridge of 1e-6 of the mean
    diagonal around 1. Where a scalar leaves [-10, 10] their code stops for good; here that one site stays
    untuned.
    """
    plan = uniform_plan(anatomy.sites, budget)
    after_norm = anatomy.entry.kind == "encoder" or not getattr(model.config, "do_layer_norm_before", True)
    dense = before_first_block(model, anatomy, batches)
    thin = staying(dense)
    for index, block in enumerate(anatomy.blocks):
        sites = anatomy.sites_of_block(index)
        notes = {site.name: _Dense(site, consumer_weight(site, block)) for site in sites}
        read_sites(dense, anatomy, index, {name: note.visit for name, note in notes.items()}, after_norm)
        for site in sites:
            keep_uncorrected(anatomy, site, strongest(notes[site.name].strength(), plan[site]))
        for site in sites:
            consumer = module_at(block, site.consumer)
            fit = _Fit(site, weight_of(consumer).double(), notes[site.name].wanted)
            read_sites(staying(thin), anatomy, index, {site.name: fit.visit}, after_norm)
            scalars = fit.scalars().repeat_interleave(site.columns)
            set_weight(consumer, fit.weight * scalars.to(fit.weight.device))
        advance(thin, block, index)
    return plan


def read_sites(
    stream: Stream, anatomy: Anatomy, index: int, visits: Mapping[str, Visit], after_norm: bool
) -> None:
    """Advance `stream` by block `index`; `visits`, by site, see what is read and the residual stream there.

    `after_norm`: the block normalises behind each addition (BERT, and OPT where its config says so), so that
    what the feed-forward's residual stream carries is what its producer reads. Otherwise it is the block's
    input plus the attention's output.
    """
    block = anatomy.blocks[index]
    attention, forward = anatomy.sites_of_block(index)
    out = module_at(block, attention.consumer)
    inputs = iter([hidden[real] for hidden, real in zip(stream.hidden, stream.real, strict=True)])
    residual: list[Tensor] = []

    def at_attention(Z: Tensor) -> None:
        before = next(inputs)
        if not after_norm:
            residual.append(before + linear(Z, weight_of(out), out.bias))
        if attention.name in visits:
            visits[attention.name](Z, before)

    def at_forward(Z: Tensor) -> None:
        between = residual.pop()
        if forward.name in visits:
            visits[forward.name](Z, between)

    readers = {attention.consumer: at_attention, forward.consumer: at_forward}
    if after_norm:
        readers[forward.producers[0].path] = residual.append
    advance(stream, block, index, readers)


def unit_products(
    G: Tensor,  # (units * columns, units * columns)
    W: Tensor,  # (out, units * columns)
    columns: int,
) -> Tensor:
    """Inner products of the units' outputs, (units, units): A_ij = tr(W_i G_ij W_j^T)."""
    units = G.shape[0] // columns
    return (G * (W.T @ W)).reshape(units, columns, units, columns).sum(dim=(1, 3))


def tuned_scalars(
    A: Tensor,  # (units, units)
    b: Tensor,  # (units,)
) -> Tensor:
    """The s, (units,), that makes ||Y - sum_u s_u Y_u||_F least; ones where an entry is beyond `LARGEST`.

    A holds the inner products of the Y_u, b those of Y_u with Y. The ridge pulls towards 1: an output that
    another one can stand for, or that is zero, keeps its scalar.
    """
    step = ridge(A, (b - A.sum(dim=1))[:, None], DAMPING).X[:, 0]
    scalars = 1 + step
    return scalars if float(scalars.abs().max()) <= LARGEST else torch.ones_like(scalars)


class _Dense:
    """What one site does in the dense model: how strong its units are, and what is wanted behind it."""

    def __init__(self, site: Site, weight: Tensor) -> None:
        self._site, self._weight = site, weight
        self._gram = Gram(weight.shape[1], device=weight.device)
        self.wanted: list[Tensor] = []

    def visit(self, Z: Tensor, residual: Tensor) -> None:
        """Residual stream plus output, without the consumer's bias, (tokens, out), a batch."""
        self._gram.update(Z)
        self.wanted.append(residual + linear(Z, self._weight.to(Z.dtype)))

    def strength(self) -> Tensor:
        """||Z_u W_u^T||_F squared, (units,)."""
        return unit_products(self._gram.matrix, self._weight, self._site.columns).diagonal()


class _Fit:
    """The normal equations of one site's scalars, from the thin model's activations."""

    def __init__(self, site: Site, weight: Tensor, wanted: Sequence[Tensor]) -> None:
        self._site, self._wanted = site, iter(wanted)
        self.weight = weight  # (out, kept columns) float64
        self._gram = Gram(weight.shape[1], device=weight.device)
        self._cross = CrossGram(weight.shape[1], weight.shape[0], device=weight.device)

    def visit(self, Z: Tensor, residual: Tensor) -> None:
        """Add a batch: what is still wanted behind the thin model's own residual stream."""
        self._gram.update(Z)
        self._cross.update(Z, next(self._wanted) - residual)

    def scalars(self) -> Tensor:
        """One a kept unit, (count,)."""
        A = unit_products(self._gram.matrix, self.weight, self._site.columns)
        return tuned_scalars(A, per_unit((self._cross.matrix * self.weight.T).sum(dim=1), self._site))
