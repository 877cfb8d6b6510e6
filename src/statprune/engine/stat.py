"""READ THIS FIRST: STAT, as published.

The calibration data walks through the dense model once; at every block the neurons' and the heads' error
curves are read off one factorisation each. The curves and the budget make a plan. The neurons are cut with
the factors of that walk, the data walks again, now through the neuron-pruned model, and the heads are cut
with the factors of the second walk. At both, the consumer is corrected so that its output is preserved:

    W <- W T^T,    Z ~ Z[:, kept] T    (interpolative decomposition)

No site sees what earlier cuts did to its input beyond that.

Source: "STAT: Shrinking Transformers After Training", Flynn, Wang, Alvarez, De Sa, Damle, 2024,
arXiv 2406.00061, sections 2 to 5.
"""

from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from statprune.anatomy.lookup import Anatomy
from statprune.anatomy.parts import SiteKind
from statprune.anatomy.shelf import State
from statprune.anatomy.sites import Site
from statprune.budget.curves import Curve, Curves, drawn_of
from statprune.budget.plan import Plan
from statprune.calibration.batches import Batch
from statprune.calibration.share import share
from statprune.calibration.stream import Stream, advance, before_first_block
from statprune.engine.experts import ExpertFactors
from statprune.engine.journal import mark, narrow_again, narrowed, recall
from statprune.engine.measure import (
    MakeAccumulator,
    at_site,
    consumer_weight,
    curve_of,
    factor_of,
    sums_through,
)
from statprune.engine.owner import by_owner
from statprune.engine.progress import Facts, Progress, no_progress
from statprune.engine.trace import Trace
from statprune.linalg.factor import Factor
from statprune.surgery.cut import cut

KINDS: tuple[SiteKind, SiteKind] = ("feed_forward", "attention")
"""In the order in which they are cut."""

Decide = Callable[[Curves], Plan]

Factors = dict[str, Factor | ExpertFactors | None]
"""By site; None where another process has it."""


@torch.no_grad()
def measure(
    model: PreTrainedModel,
    anatomy: Anatomy,
    batches: Sequence[Batch],
    make: MakeAccumulator,
    progress: Progress = no_progress,
    *,
    keep_factors: bool = True,
) -> tuple[dict[str, Curve], Factors]:
    """Curves of all sites, and the factors of the neuron sites, from one walk through the model as it is.

    Cost: one forward pass, a Gram matrix (or its like) and a factorisation per site. The factors, units^2
    numbers per block, stay in memory until the plan is made, unless `keep_factors` is false. Several
    processes share them out: each has factors of its own sites, and None in place of others.
    """
    curves: dict[str, Curve] = {}
    factors: Factors = {}
    stream = before_first_block(model, anatomy, share(batches, anatomy.ranks).of(batches))
    for index, block in anatomy.visited():
        sites, earlier = anatomy.sites_of_block(index), anatomy.shelf.earlier("measure", index)
        if earlier is not None:
            advance(stream, block, index)
            curves |= _curves_of(earlier)
        else:
            here = _factors(anatomy, stream, block, index, sites, make)
            own = {
                site.name: curve_of(site, factor, consumer_weight(site, block))
                for site in sites
                if (factor := here[site.name]) is not None
            }
            for site in sites:
                curves[site.name] = anatomy.ranks.same(own.get(site.name), anatomy.owner_of(site))
                if site.kind == "feed_forward" and keep_factors:
                    factors[site.name] = here[site.name]
            anatomy.shelf.note("measure", index, _state_of({site.name: curves[site.name] for site in sites}))
        progress(
            "measure", index + 1, len(anatomy.blocks), Facts(curves=curves, recalled=earlier is not None)
        )
    return curves, factors


@torch.no_grad()
def stat(
    model: PreTrainedModel,
    anatomy: Anatomy,
    batches: Sequence[Batch],
    plan: Plan | Decide,
    make: MakeAccumulator,
    trace: Trace,
    progress: Progress = no_progress,
) -> Plan:
    """Narrow `model` in place to `plan`, or to what `plan` decides from the curves; return the plan.

    With a plan that is known beforehand the data takes both walks side by side, and every block is visited
    once: its neurons are cut as soon as the dense data has passed it, its heads behind the other's. Else
    the first walk is `measure`; its factors are kept until the plan is made, or made again where blocks lie
    on a shelf. What the shelf has of a block from an earlier run
    is not made again.
    """
    factors: Factors = {}
    curves: dict[str, Curve] = {}
    if not isinstance(plan, Plan):
        started = perf_counter()
        kept = not anatomy.shelf.lends
        curves, factors = measure(model, anatomy, batches, make, progress, keep_factors=kept)
        plan = anatomy.ranks.same(plan(curves))
        trace.curves = drawn_of(curves, plan.widths)
        trace.ended("measure", started)
    started = perf_counter()
    sites = [site for site in anatomy.sites if plan[site] < site.units]
    missing = [site for site in sites if site.kind == "feed_forward" and site.name not in factors]
    own = share(batches, anatomy.ranks).of(batches)
    dense = before_first_block(model, anatomy, own) if missing else None
    thin = before_first_block(model, anatomy, own) if dense is None else dense.fork()
    last = max((site.block for site in sites), default=-1)
    for index, block in anatomy.visited(last + 1):
        here = [site for site in sites if site.block == index]
        neurons, heads = ([site for site in here if site.kind == kind] for kind in KINDS)
        earlier, since = anatomy.shelf.earlier("prune", index), mark(trace)
        unknown = [] if earlier is not None else [site for site in neurons if site in missing]
        if dense is not None and index <= missing[-1].block:
            factors |= _factors(anatomy, dense, block, index, unknown, make)
        if earlier is not None:
            narrow_again(block, neurons, earlier)
            advance(thin, block, index)
            narrow_again(block, heads, earlier)
            recall(earlier, trace, thin, anatomy.ranks)
        else:
            for site in neurons:
                known = curves.get(site.name)
                _prune(anatomy, block, site, factors.pop(site.name), plan[site], trace, known)
            walked = _factors(anatomy, thin, block, index, heads, make)
            for site in heads:
                _prune(anatomy, block, site, walked.pop(site.name), plan[site], trace)
            anatomy.shelf.note("prune", index, narrowed(block, trace, since, thin, anatomy.ranks))
        progress("prune", index + 1, last + 1, trace.facts(recalled=earlier is not None))
    trace.ended("prune", started)
    return plan


def _factors(
    anatomy: Anatomy,
    stream: Stream,
    block: nn.Module,
    index: int,
    sites: Sequence[Site],
    make: MakeAccumulator,
) -> Factors:
    """Advance the stream by one block; factors of `sites`, None where another process has it."""
    seen = sums_through(anatomy, stream, block, index, sites, make)
    return {
        site.name: factor_of(site, block, seen.pop(site.name)) if site.name in seen else None
        for site in sites
    }


def _prune(
    anatomy: Anatomy,
    block: nn.Module,
    site: Site,
    factor: Factor | ExpertFactors | None,
    count: int,
    trace: Trace,
    known: Curve | None = None,
) -> None:
    """Cut `site` with its factor, where it is; `known` is its curve, if that was read off already."""
    owner = anatomy.owner_of(site)
    with at_site(site):
        by_owner(
            anatomy.ranks, owner, block, site, trace,
            lambda: _cut(block, site, cast(Factor | ExpertFactors, factor), count, trace, known),
        )  # fmt: skip


def _cut(
    block: nn.Module,
    site: Site,
    factor: Factor | ExpertFactors,
    count: int,
    trace: Trace,
    known: Curve | None,
) -> None:
    weight = consumer_weight(site, block)
    errors = factor.errors(weight) if known is None else known.output
    part = factor.interpolation(count)
    cut(block, site, part.kept, weight @ part.T.mT)
    relative = float(errors[count] / errors[0]) if float(errors[0]) > 0 else 0.0
    if isinstance(factor, ExpertFactors):
        trace.note_unseen(site, factor.unseen)
    trace.add(site, part.kept.tolist(), relative, part.condition, part.rank)


def _state_of(curves: Mapping[str, Curve]) -> State:
    parts = {f"{name}.{part}": own for name, curve in curves.items() for part, own in vars(curve).items()}
    return State({name: own.clone() for name, own in parts.items()})  # one may be a view of another


def _curves_of(state: State) -> dict[str, Curve]:
    found: dict[str, dict[str, Tensor]] = {}
    for name, value in state.tensors.items():
        site, _, part = name.rpartition(".")
        found.setdefault(site, {})[part] = value
    return {site: Curve(**parts) for site, parts in found.items()}
