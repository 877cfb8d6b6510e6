"""The compensated refit of the experts of a block: each is narrowed on the tokens that it is given.

With w the router's weight of an expert for a token, and z its neurons, the block adds w B^T z for each expert
that the token goes to. So every expert is fitted to

    (w z) W^T  +  w / (sum of the token's w)  *  what was lost at that token,

its own dense output on what the thin stream brings, and its share of what earlier cuts have lost; over the
experts of a token these targets add up to what the block should add. Choice, dampings and fit are those of
any other site (engine/refit.py).
"""

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from statprune.anatomy.producers import module_at
from statprune.anatomy.ranks import dealt, pooled
from statprune.anatomy.sites import Site
from statprune.calibration.routing import Routed
from statprune.calibration.stream import Seen
from statprune.engine.experts import of_expert, told_apart
from statprune.engine.measure import consumer_weight
from statprune.engine.passage import MakeGood, Passage
from statprune.engine.trace import Trace
from statprune.linalg.elimination import eliminate
from statprune.linalg.held_out import Compensation, ConsumerFit, damping_of_choice, fit_consumer
from statprune.linalg.moments import Halves, Moments, MomentSum, in_two
from statprune.surgery.cut import cut
from statprune.surgery.experts import sizes


def narrow_experts(at: Passage, site: Site, count: int, trace: Trace, make_good: MakeGood) -> None:
    """Choose `count` neurons of every expert of `site`, cut it, and fit what reads them.

    An expert that was given too few tokens keeps its largest neurons, uncorrected; the trace says so.
    """
    module = module_at(at.block, site.consumer)
    W = consumer_weight(site, at.block)
    seen = [
        (each, each[site.consumer], target - module(*each[site.consumer]), row_weights)
        for each, target, row_weights in at.targets(site)
    ]
    largest = sizes(module).argsort(dim=1, descending=True)
    own: dict[int, ExpertFit] = {}
    for expert, pair in dealt(
        at.ranks, site.experts, lambda expert: _sums(at, site, expert, seen, W[expert])
    ):
        own[expert] = _fit(in_two(*pair), (W[expert], largest[expert]), count, make_good, at.eps)
    fits = [each for _, each in sorted(pooled(at.ranks, own).items())]
    kept = torch.stack([each.kept for each in fits])
    cut(at.block, site, kept, torch.stack([each.weight for each in fits]))
    trace.note_unseen(site, [expert for expert, each in enumerate(fits) if not each.seen])
    energy, missed = sum(each.energy for each in fits), sum(each.missed for each in fits)
    error = sqrt(missed / energy) if energy > 0 else 0.0
    trace.add(site, kept.tolist(), error, max(1.0, *(each.condition for each in fits)), count)


@dataclass(frozen=True, eq=False)
class ExpertFit:
    """What becomes of one expert.

    `kept` (count,) and `weight` (out, count) of what reads them; `energy` of its targets and what of it is
    `missed`; whether it was given enough tokens to be fitted.
    """

    kept: Tensor
    weight: Tensor
    missed: float
    energy: float
    condition: float
    seen: bool


def _fit(
    halves: Halves, weights: tuple[Tensor, Tensor], count: int, make_good: MakeGood, eps: float
) -> ExpertFit:
    """`weights`: what reads the expert's neurons, (out, units), and these from the largest on, (units,)."""
    W, largest = weights
    told = told_apart(halves.fit.rows + halves.held.rows, W.shape[1], halves.spread)
    before = halves.energy
    made_good = make_good(*halves.against(W.T)) if told else None
    lost, whole = halves.energy, halves.whole()
    if made_good is not None:
        energy = whole.energy
        local = damping_of_choice(made_good, lost, before, eps)
        kept, found = _fitted(whole, made_good, W, count, local)
        return ExpertFit(kept, found.B.T, found.error * energy, energy, found.condition, seen=True)
    kept = largest[:count].sort().values
    weight = W[:, kept]
    return ExpertFit(kept, weight, whole.of(kept).error(weight.T), whole.energy, 1.0, seen=False)


def _sums(
    at: Passage, site: Site, expert: int, seen: list[tuple[Seen, Routed, Tensor, Tensor]], W: Tensor
) -> tuple[MomentSum, MomentSum]:
    """Of what reads one expert's neurons: rows to fit, rows held out."""
    pair = at.pair(site.units, W.shape[0], False)
    module = module_at(at.block, site.consumer)
    for each, routed, lost, row_weights in seen:
        tokens, Z = of_expert(module, expert, routed)
        if len(tokens):
            share = routed.given_to(expert)[1] / routed.weights[tokens].sum(dim=1)
            target = Z @ W.T.to(Z.dtype) + share[:, None] * lost[tokens]
            at.add(pair, each, (Z, target), row_weights[tokens], tokens)
    return pair


def _fitted(
    whole: Moments, made_good: Compensation, W: Tensor, count: int, local: float
) -> tuple[Tensor, ConsumerFit]:
    """The neurons of one expert that are kept, and what reads them."""
    dense = W.T
    kept = torch.arange(len(dense), device=W.device)
    if count < len(dense):
        chosen = eliminate(whole.G, dense + made_good.B, damping=local, least=count)
        kept = chosen.order[:count].sort().values
    return kept, fit_consumer(whole, W, kept, made_good.damping)
