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

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

import torch
from torch import Tensor
from transformers import PreTrainedModel

from statprune.anatomy.lookup import Anatomy
from statprune.anatomy.parts import SiteKind
from statprune.anatomy.sites import Site
from statprune.budget.curves import Curve, Curves
from statprune.budget.plan import Plan
from statprune.calibration.batches import Batch
from statprune.calibration.stream import before_first_block
from statprune.engine.experts import ExpertFactors
from statprune.engine.measure import MakeAccumulator, consumer_weight, curve_of, factor_of, through_block
from statprune.engine.progress import Facts, Progress, no_progress
from statprune.engine.trace import Trace
from statprune.linalg.factor import Factor
from statprune.surgery.cut import cut

Decide = Callable[[Curves], Plan]


@torch.no_grad()
def measure(
    model: PreTrainedModel,
    anatomy: Anatomy,
    batches: Sequence[Batch],
    make: MakeAccumulator,
    progress: Progress = no_progress,
) -> tuple[dict[str, Curve], dict[str, Factor | ExpertFactors]]:
    """Curves of all sites, and the factors of the neuron sites, from one walk through the model as it is.

    Cost: one forward pass, a Gram matrix (or its like) and a factorisation per site. The factors, units^2
    numbers per block, stay in memory until the plan is made.
    """
    curves: dict[str, Curve] = {}
    factors: dict[str, Factor | ExpertFactors] = {}
    stream = before_first_block(model, anatomy, batches)
    for index, block in enumerate(anatomy.blocks):
        sites = anatomy.sites_of_block(index)
        seen = through_block(stream, block, index, sites, make)
        for site in sites:
            factor = factor_of(site, block, seen.pop(site.name))
            curves[site.name] = curve_of(site, factor, consumer_weight(site, block))
            if site.kind == "feed_forward":
                factors[site.name] = factor
        progress("measure", index + 1, len(anatomy.blocks), Facts(curves=curves))
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

    A plan that is known beforehand costs less: each block's neurons are cut as soon as the data has
    passed it, and no factor is kept.
    """
    walk = _Walk(model, anatomy, batches, make, trace, progress)
    started = perf_counter()
    if isinstance(plan, Plan):
        walk.prune(plan, "feed_forward")
    else:
        curves, factors = measure(model, anatomy, batches, make, progress)
        plan = plan(curves)
        for site in _narrowed(anatomy, plan, "feed_forward"):
            _prune(anatomy, site, factors.pop(site.name), plan[site], curves[site.name].output, trace)
    trace.seconds["neurons"] = perf_counter() - started

    started = perf_counter()
    walk.prune(plan, "attention")
    trace.seconds["heads"] = perf_counter() - started
    return plan


@dataclass(frozen=True, eq=False)
class _Walk:
    """The data's way through the model as it is when the walk begins, cutting behind it."""

    model: PreTrainedModel
    anatomy: Anatomy
    batches: Sequence[Batch]
    make: MakeAccumulator
    trace: Trace
    progress: Progress

    def prune(self, plan: Plan, kind: SiteKind) -> None:
        narrowed = _narrowed(self.anatomy, plan, kind)
        if not narrowed:
            return
        stream = before_first_block(self.model, self.anatomy, self.batches)
        last = narrowed[-1].block
        for index in range(last + 1):
            block = self.anatomy.blocks[index]
            sites = [site for site in narrowed if site.block == index]
            seen = through_block(stream, block, index, sites, self.make)
            for site in sites:
                factor = factor_of(site, block, seen.pop(site.name))
                errors = factor.errors(consumer_weight(site, block))
                _prune(self.anatomy, site, factor, plan[site], errors, self.trace)
            self.progress(kind, index + 1, last + 1, self.trace.facts())


def _narrowed(anatomy: Anatomy, plan: Plan, kind: SiteKind) -> list[Site]:
    return [site for site in anatomy.sites if site.kind == kind and plan[site] < site.units]


def _prune(
    anatomy: Anatomy,
    site: Site,
    factor: Factor | ExpertFactors,
    count: int,
    errors: Tensor,  # (units + 1,) of the consumer's output
    trace: Trace,
) -> None:
    block = anatomy.blocks[site.block]
    part = factor.interpolation(count)
    cut(block, site, part.kept, consumer_weight(site, block) @ part.T.mT)
    relative = float(errors[count] / errors[0]) if float(errors[0]) > 0 else 0.0
    if isinstance(factor, ExpertFactors):
        trace.note_unseen(site, factor.unseen)
    trace.add(site, part.kept.tolist(), relative, part.condition, part.rank)
