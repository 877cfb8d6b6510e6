"""READ THIS SECOND: the compensated refit, the default method.

The calibration data walks through the network in two streams, dense and thin. At every block, first the dense
stream passes it; then its sites are narrowed for the thin stream, attention before feed-forward:

    adapt      the producers read what the thin stream brings; they are fitted to see what the dense one
               brings:         W <- W (1 + M)^T   with   x_dense ~ x_thin (1 + M)
    choose     units go one group after the other, the one first that the consumer misses least once the
               others are fitted again                      (linalg/elimination.py)
    fit        the consumer's new weight brings the thin hidden state as near to the dense one as the kept
               units can:      min_B ||(dense output + dense residual - thin residual) - Z_thin B||^2
    narrow values      where the plan says so, every head kept has fewer columns of its values, and the
               consumer is fitted to those                  (engine/head_values.py)
    carry      where tokens are many, the kept units' values, or up and gate projections, are fitted to the
               same target                                  (engine/carriers.py)

so that each site makes good what the cuts before it have lost. How far it follows that, is decided on samples
held out. Errors count relative to the size of each token's hidden state (engine/row_weights.py).

Sources: algorithm notes in docs/algorithm.md; compensation: Frantar & Alistarh 2022; Park et al., "K-prune",
ICLR 2024; elimination: Hassibi & Stork 1992; Meng et al., "OSSCAR", ICML 2024.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import takewhile
from math import sqrt
from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from statprune.anatomy.lookup import Anatomy
from statprune.anatomy.producers import module_at
from statprune.anatomy.sites import Site
from statprune.budget.plan import Plan
from statprune.calibration.batches import Batch, samples_in
from statprune.calibration.routing import hidden_of
from statprune.calibration.stream import advance, before_first_block, until
from statprune.engine.carriers import improve
from statprune.engine.divergence import outputs_on_one
from statprune.engine.expert_fits import narrow_experts
from statprune.engine.few_tokens import added_to, wanted_of
from statprune.engine.head_values import narrow_heads, narrow_values
from statprune.engine.journal import mark, narrow_again, narrowed, recall
from statprune.engine.measure import at_site, consumer_weight
from statprune.engine.outcome import note_divergence
from statprune.engine.owner import by_owner
from statprune.engine.passage import Data, MakeGood, Passage, observed
from statprune.engine.progress import Progress, no_progress
from statprune.engine.trace import Trace
from statprune.linalg.elimination import eliminate
from statprune.linalg.held_out import NONE, compensation, damping_of_choice, fit_consumer
from statprune.linalg.least_squares import ridge
from statprune.linalg.moments import Halves, Moments
from statprune.surgery.cut import cut
from statprune.surgery.experts import adapt_producers
from statprune.surgery.linear import add_to_bias, set_weight, weight_of

ADAPTED, FEWEST_ADAPTED = 16, 4096
"""Tokens that producers are adapted on: so many for each of their inputs, and at least so many."""

CONSTANT = 1e-6
"""Share of their energy that a site's activations must move by not to count as constant."""

Step = Callable[["Passage", Site, int, Trace], None]
"""Changes one site of a block: (the block's passage, the site, units to keep, the trace)."""


@torch.no_grad()
def refit(  # noqa: PLR0913 - one is named
    model: PreTrainedModel,
    anatomy: Anatomy,
    batches: Sequence[Batch],
    plan: Plan,
    trace: Trace,
    progress: Progress = no_progress,
    steps: Sequence[Step] | None = None,
    *,
    splice: bool = True,
) -> None:
    """Narrow `model` in place to `plan`, block by block.

    `steps` are taken at every site in turn; by default `adapt` and `narrow`, to the plan's value dimension
    where it has one. What the shelf has of a block from an earlier run is not made again. Where tokens are
    few, fits see spliced samples besides (engine/few_tokens.py), unless `splice` is false.

    Cost: about three forward passes, for every site a Gram matrix and an elimination, and where there are
    tokens enough five passes through its carrier and consumer, there and back. Memory: both streams, one
    block's dense inputs and outputs, and what one site's carrier is fitted on.
    """
    first = min((site.block for site in anatomy.sites if plan.narrows(site)), default=len(anatomy.blocks))
    # Before anything is cut: where blocks are lent, a walk up to a stack may read its first one anew, whole.
    unit, of_tokens = outputs_on_one(model, anatomy, batches[0])
    splice = splice and first < len(anatomy.blocks)
    added = added_to(anatomy, batches, wanted_of(unit, of_tokens=of_tokens)) if splice else []
    trace.spliced = sum(map(samples_in, added))
    data = Data.of(batches, anatomy.ranks, added)
    dense = before_first_block(model, anatomy, data.batches)
    thin = dense.fork()
    steps = (adapt, partial(narrow, value_dim=plan.value_dim)) if steps is None else steps
    for index, block in anatomy.visited():
        sites, earlier = anatomy.sites_of_block(index), anatomy.shelf.earlier("refit", index)
        if index < first:
            advance(dense, block, index)
            thin = dense.fork()
        elif earlier is not None:
            advance(dense, block, index)
            narrow_again(block, sites, earlier)
            advance(thin, block, index)
            recall(earlier, trace, thin, anatomy.ranks)
        else:
            since = mark(trace)
            seen = observed(anatomy, dense, block, index)
            thin.stand_before(index)
            passage = Passage(anatomy, block, index, thin, seen, data)
            for site in sites:
                for step in steps:
                    with at_site(site):
                        step(passage, site, plan[site], trace)
            advance(thin, block, index)
            anatomy.shelf.note("refit", index, narrowed(block, trace, since, thin, anatomy.ranks))
        progress("refit", index + 1, len(anatomy.blocks), trace.facts(recalled=earlier is not None))
    trace.damage = unit
    note_divergence(model, anatomy, batches, data.given, dense, thin, trace)
    progress("compare", 1, 1, trace.facts())


def adapt(at: Passage, site: Site, count: int, trace: Trace) -> None:
    """Fit the producers of `site` to what the thin stream brings them."""
    path = site.producers[0].path
    width = at.dense.inputs[path][0].shape[1]
    linears = [
        module_at(at.block, producer.path) for producer in site.producers if producer.reads == "hidden"
    ]
    constant = not site.experts and all(linear.bias is not None for linear in linears)
    pair = at.pair(width, width, constant)
    used = list(takewhile(len, at.data.adapted(max(FEWEST_ADAPTED, ADAPTED * width))))
    for seen in until(at.thin, at.block, at.index, path, batches=len(used)):
        number, rows = seen.position, seen.rows
        tokens = int(at.thin.real[number][rows.start : min(rows.stop, len(used[number]))].sum())
        x_dense = at.dense.inputs[path][number][seen.tokens][:tokens]
        x_thin = hidden_of(seen[path])[:tokens]
        at.add(pair, seen, (x_thin, x_dense - x_thin))
    halves = at.in_two(pair)
    by_owner(
        at.ranks, 0, at.block, site, trace,
        lambda: _adapt(site, linears, cast(Halves, halves), constant),
    )  # fmt: skip


def _adapt(site: Site, linears: Sequence[Any], halves: Halves, constant: bool) -> None:
    found = compensation(halves.fit, halves.held)
    if found.damping == NONE:
        return
    whole = halves.whole()
    M = ridge(whole.G, whole.C, found.damping).X
    shift = whole.shift(M)
    for linear in linears:
        if site.experts:
            adapt_producers(linear, M)
            continue
        W = weight_of(linear).double()
        if constant:
            add_to_bias(linear, W @ shift)
        set_weight(linear, W + W @ M.T)


def narrow(
    at: Passage,
    site: Site,
    count: int,
    trace: Trace,
    make_good: MakeGood = compensation,
    carry: bool = True,
    value_dim: int | None = None,
) -> None:
    """Choose `count` units of `site`, cut it, fit its consumer, and its carrier with it.

    Where values have a weight of their own, every head kept has `value_dim` columns of them; None: all.
    """
    if site.experts:
        narrow_experts(at, site, count, trace, make_good)
        return
    dim = value_dim if site.values_apart else None
    moments = [at.moments(site, noting=carry)]
    notes = moments[0][1]
    basis: list[Tensor] = []  # stays with the process that fits

    def change() -> Tensor | None:
        kept, own = _narrow(at, site, count, trace, cast(Halves, moments.pop()[0]), make_good, dim)
        basis.extend([] if own is None else [own])
        return kept

    kept = by_owner(at.ranks, 0, at.block, site, trace, change)
    if notes is not None and kept is not None:
        improve(at.block, site, kept, notes, at.ranks, *basis)
    if dim is not None:
        narrow_heads(at.block, site, dim)


def _narrow(
    at: Passage,
    site: Site,
    count: int,
    trace: Trace,
    halves: Halves,
    make_good: MakeGood,
    value_dim: int | None,
) -> tuple[Tensor | None, Tensor | None]:
    """Choose, cut and fit by these moments.

    Returns the units kept, None where its activations are constant, and the basis of their values, None where
    these stay whole.
    """
    silent = _silent(halves)
    cut_to = _cut_silent if silent else partial(_cut_chosen, make_good=make_good)
    kept, whole = cut_to(at, site, count, halves, trace)
    del halves
    basis = None
    if value_dim is not None:
        seen = whole.of(site.columns_of(kept))
        del whole  # large, and so is what comes
        basis = narrow_values(at.block, site, seen, value_dim)
    return None if silent else kept, basis


def _cut_chosen(
    at: Passage, site: Site, count: int, halves: Halves, trace: Trace, make_good: MakeGood
) -> tuple[Tensor, Moments]:
    """Cut to the units that are missed least; those, and the moments of all; uses `halves` up."""
    energy = halves.energy
    made_good = make_good(*halves.against(consumer_weight(site, at.block).T))
    local = damping_of_choice(made_good, halves.energy, energy, at.eps)
    whole, W = halves.whole(), consumer_weight(site, at.block)
    kept = torch.arange(site.units, device=W.device)
    if count < site.units:
        chosen = eliminate(whole.G, W.T + made_good.B, unit=site.columns, damping=local, least=count)
        kept = chosen.order[:count].sort().values
    damping = made_good.damping
    del made_good
    found = fit_consumer(whole, W, site.columns_of(kept), damping)
    _cut(at, site, kept, found.B.T, found.shift)
    trace.add(site, kept.tolist(), sqrt(found.error), found.condition, len(kept) * site.columns)
    return kept, whole


def _silent(halves: Halves) -> bool:
    """Whether the activations are constant, up to rounding."""
    weight, mean = halves.fit.weight + halves.held.weight, float(halves.fit.mean_input.square().sum())
    return halves.spread <= CONSTANT * (halves.spread + weight * mean)


def _cut_silent(at: Passage, site: Site, count: int, halves: Halves, trace: Trace) -> tuple[Tensor, Moments]:
    """Cut to the first units; those, and the moments of all; uses `halves` up."""
    W, whole = consumer_weight(site, at.block), halves.whole()
    kept = torch.arange(count, device=W.device)
    columns = site.columns_of(kept)
    part, weight = whole.of(columns), W.T[columns]
    _cut(at, site, kept, weight.T, part.shift(weight))
    left = part.error(weight)
    trace.add(site, kept.tolist(), sqrt(left / whole.energy) if whole.energy > 0 else 0.0, 1.0, 0)
    return kept, whole


def _cut(at: Passage, site: Site, kept: Tensor, weight: Tensor, shift: Tensor) -> None:
    """Cut `site` to `kept`; its consumer gets this weight, and `shift` on its bias if it has one."""
    cut(at.block, site, kept, weight)
    consumer = module_at(at.block, site.consumer)
    if consumer.bias is not None:
        add_to_bias(consumer, shift)
