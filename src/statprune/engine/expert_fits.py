"""The compensated refit of the experts of a block: each is narrowed on the tokens that it is given.

With w the router's weight of an expert for a token, and z its neurons, the block adds w B^T z for each expert
that the token goes to. So every expert is fitted to

    (w z) W^T  +  w / (sum of the token's w)  *  what was lost at that token,

its own dense output on what the thin stream brings, and its share of what earlier cuts have lost; over the
experts of a token these targets add up to what the block should add. Choice, dampings and fit are those of
any other site (engine/refit.py).
"""

from math import sqrt

import torch
from torch import Tensor

from statprune.anatomy.producers import module_at
from statprune.anatomy.sites import Site
from statprune.calibration.routing import Routed
from statprune.engine.experts import of_expert, told_apart
from statprune.engine.measure import consumer_weight
from statprune.engine.passage import MakeGood, Passage
from statprune.engine.trace import Trace
from statprune.linalg.elimination import eliminate
from statprune.linalg.held_out import LOCAL, NONE, Compensation, ConsumerFit, fit_consumer
from statprune.linalg.moments import Halves, Moments, in_two
from statprune.surgery.cut import cut
from statprune.surgery.experts import sizes


def narrow_experts(at: Passage, site: Site, count: int, trace: Trace, make_good: MakeGood) -> None:
    """Choose `count` neurons of every expert of `site`, cut it, and fit what reads them.

    An expert that was given too few tokens keeps its largest neurons, uncorrected; the trace says so.
    """
    module = module_at(at.block, site.consumer)
    W = consumer_weight(site, at.block)
    seen = [(routed, target - module(*routed)) for routed, target in at.targets(site)]
    largest = sizes(module).argsort(dim=1, descending=True)
    kept, weights, unseen = [], [], []
    missed = energy = 0.0
    condition = 1.0
    for expert in range(site.experts):
        halves = _moments(at, site, expert, seen, W[expert])
        told = told_apart(halves.fit.rows + halves.held.rows, site.units, halves.spread)
        made_good = make_good(*halves.against(W[expert].T)) if told else None
        whole = halves.whole()
        energy += whole.energy
        if made_good is not None:
            chosen, found = _fitted(whole, made_good, W[expert], count)
            weight, condition = found.B.T, max(condition, found.condition)
            missed += found.error * whole.energy
        else:
            unseen.append(expert)
            chosen = largest[expert, :count].sort().values
            weight = W[expert][:, chosen]
            missed += whole.of(chosen).error(weight.T)
        kept.append(chosen)
        weights.append(weight)
    cut(at.block, site, torch.stack(kept), torch.stack(weights))
    trace.note_unseen(site, unseen)
    error = sqrt(missed / energy) if energy > 0 else 0.0
    trace.add(site, torch.stack(kept).tolist(), error, condition, count)


def _moments(at: Passage, site: Site, expert: int, seen: list[tuple[Routed, Tensor]], W: Tensor) -> Halves:
    """Of what reads one expert's neurons."""
    pair = at.pair(site.units, W.shape[0], False)
    module = module_at(at.block, site.consumer)
    for number, (routed, lost) in enumerate(seen):
        tokens, Z = of_expert(module, expert, routed)
        if len(tokens):
            share = routed.given_to(expert)[1] / routed.weights[tokens].sum(dim=1)
            target = Z @ W.T.to(Z.dtype) + share[:, None] * lost[tokens]
            at.add(pair, number, Z, target, tokens)
    return in_two(*pair)


def _fitted(whole: Moments, made_good: Compensation, W: Tensor, count: int) -> tuple[Tensor, ConsumerFit]:
    """The neurons of one expert that are kept, and what reads them."""
    dense = W.T
    kept = torch.arange(len(dense), device=W.device)
    if count < len(dense):
        damping = LOCAL if made_good.damping == NONE else made_good.damping
        kept = eliminate(whole.G, dense + made_good.B, damping=damping).order[:count].sort().values
    return kept, fit_consumer(whole, W, kept, made_good.damping)
