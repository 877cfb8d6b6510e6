"""Gradient-free peers of STAT, each as its authors describe it, in this package's engine.

All are called alike: `PEERS[name](model, anatomy, batches, budget, generator)` narrows `model` (in eval mode)
in place and returns its plan, which costs no more than the budget. All get the same batches and know nothing
else. Their widths are those of `uniform_widths`, except FLAP's, whose widths are part of the method.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from statprune.anatomy.lookup import Anatomy
from statprune.anatomy.producers import module_at
from statprune.anatomy.sites import Site
from statprune.budget.allocate import Budget
from statprune.budget.plan import Plan
from statprune.calibration.batches import Batch
from statprune.calibration.stream import advance, before_first_block
from statprune.engine.measure import consumer_weight, through_block
from statprune.errors import BudgetError
from statprune.surgery.linear import weight_of

from .least_squares_removal import least_squares
from .mask_tuning import mask_tuning
from .widths import keep_uncorrected, per_unit, staying, strongest, uniform_plan, uniform_widths

__all__ = ["PEERS", "flap", "magnitude", "random_units", "uniform_widths", "wanda_sp"]

Peer = Callable[[PreTrainedModel, Anatomy, Sequence[Batch], Budget, torch.Generator], Plan]


class Moments:
    """Sums over all rows of Z and of its squares, a column each; takes an accumulator's place."""

    def __init__(self, width: int) -> None:
        self.rows = 0
        self._sum = torch.zeros(width, dtype=torch.float64)
        self._squares = torch.zeros(width, dtype=torch.float64)

    def update(self, Z: Tensor) -> None:
        """Take in the rows of Z (n, width)."""
        Z = Z.double()
        self.rows += Z.shape[0]
        self._sum = self._sum.to(Z.device) + Z.sum(dim=0)
        self._squares = self._squares.to(Z.device) + Z.square().sum(dim=0)

    def mean(self) -> Tensor:
        """(width,)."""
        return self._sum / self.rows

    def norms(self) -> Tensor:
        """||Z_j||, (width,)."""
        return self._squares.sqrt()

    def variance(self) -> Tensor:
        """Mean squared distance from the mean, (width,)."""
        return (self._squares / self.rows - self.mean().square()).clamp(min=0)


@torch.no_grad()
def random_units(
    model: PreTrainedModel,
    anatomy: Anatomy,
    batches: Sequence[Batch],
    budget: Budget,
    generator: torch.Generator,
) -> Plan:
    """Uniform widths, units drawn from `generator`, no correction: what any choice must beat."""
    plan = uniform_plan(anatomy.sites, budget)
    for site in anatomy.sites:
        drawn = torch.randperm(site.units, generator=generator, device=generator.device)
        keep_uncorrected(anatomy, site, drawn[: plan[site]].sort().values)
    return plan


@torch.no_grad()
def magnitude(
    model: PreTrainedModel,
    anatomy: Anatomy,
    batches: Sequence[Batch],
    budget: Budget,
    generator: torch.Generator,
) -> Plan:
    """Uniform widths, units of the largest weights, no correction.

    A unit's score is the L2 norm of all its weights: its producers' rows and its consumer's columns. (Mag-sp
    in FLAP's code adds up the norms of the consumer's columns alone.)
    """
    plan = uniform_plan(anatomy.sites, budget)
    for site in anatomy.sites:
        scores = weight_norms(site, anatomy.blocks[site.block])
        keep_uncorrected(anatomy, site, strongest(scores, plan[site]))
    return plan


def weight_norms(site: Site, block: nn.Module) -> Tensor:
    """L2 norm of all weights of every unit, (units,)."""
    squares = per_unit(consumer_weight(site, block).square().sum(dim=0), site)
    for producer in site.producers:
        rows = weight_of(module_at(block, producer.path)).double().square().sum(dim=1)
        for section in producer.sections:
            own = rows[section.offset : section.offset + site.units * section.rows]
            squares += own.reshape(site.units, section.rows).sum(dim=1)
    return squares.sqrt()


@torch.no_grad()
def wanda_sp(
    model: PreTrainedModel,
    anatomy: Anatomy,
    batches: Sequence[Batch],
    budget: Budget,
    generator: torch.Generator,
) -> Plan:
    """Uniform widths, units by Wanda's score summed over the structure, no correction.

    A unit's score is the sum of |W_ij| ||Z_j|| over its consumer columns j and all outputs i (Sun et al.,
    "Wanda", ICLR 2024, arXiv 2306.11695; Wanda-sp: An et al., "FLAP", AAAI 2024, arXiv 2312.11983). As in
    FLAP's code a block's norms come from the model pruned so far, both its sites read before either is cut.
    """
    plan = uniform_plan(anatomy.sites, budget)
    stream = before_first_block(model, anatomy, batches)
    for index, block in enumerate(anatomy.blocks):
        sites = anatomy.sites_of_block(index)
        seen = through_block(staying(stream), block, index, sites, Moments)
        for site in sites:
            scores = wanda_scores(site, consumer_weight(site, block), seen[site.name].norms())
            keep_uncorrected(anatomy, site, strongest(scores, plan[site]))
        advance(stream, block, index)
    return plan


def wanda_scores(
    site: Site,
    W: Tensor,  # (out, units * columns)
    norms: Tensor,  # (units * columns,) ||Z_j||
) -> Tensor:
    """Sum of |W_ij| ||Z_j|| over every unit, (units,)."""
    return per_unit(W.abs().sum(dim=0) * norms, site)


@torch.no_grad()
def flap(
    model: PreTrainedModel,
    anatomy: Anatomy,
    batches: Sequence[Batch],
    budget: Budget,
    generator: torch.Generator,
) -> Plan:
    """FLAP: one threshold on standardised fluctuations over all heads and neurons; means go into biases.

    An et al., "Fluctuation-based Adaptive Structured Pruning for Large Language Models", AAAI 2024, arXiv
    2312.11983, in the variant its scripts run: metric WIFV, structure AL-AM, all activations from the dense
    model. What is dropped is replaced by its mean: consumer bias += W_dropped mean(Z_dropped).

    A consumer without a bias (Llama) is given one, as in the authors' code, in memory only: no stock config
    says "a bias here alone". Added biases are parameters and count towards the budget, so the plan may cost
    that much less than the limit; nothing is added where nothing is dropped.

    Differs from the code in exact costs, where it weighs a head as 512/3 neurons (4 x 128 columns against 3);
    in rounding neurons to the nearest legal width of each block, and using what the threshold leaves of the
    budget; in one head and the fewest neurons staying everywhere; in the exact variance over all tokens,
    where it updates a running mean sequence by sequence; and, with grouped queries, which it does not know,
    in scoring a group over all its columns.
    """
    stream = before_first_block(model, anatomy, batches)
    seen: dict[str, Moments] = {}
    for index, block in enumerate(anatomy.blocks):
        seen |= through_block(stream, block, index, anatomy.sites_of_block(index), Moments)
    scores = {
        site.name: fluctuations(
            site, consumer_weight(site, anatomy.blocks[site.block]), seen[site.name].variance()
        )
        for site in anatomy.sites
    }
    plan = adaptive_plan(scores, anatomy, budget)
    for site in anatomy.sites:
        if plan[site] < site.units:
            kept = strongest(scores[site.name], plan[site])
            _into_bias(anatomy, site, kept, seen[site.name].mean())
            keep_uncorrected(anatomy, site, kept)
    return plan


def fluctuations(
    site: Site,
    W: Tensor,  # (out, units * columns)
    variance: Tensor,  # (units * columns,) of the activations
) -> Tensor:
    """FLAP's score of every unit, (units,).

    Per column variance times squared norm of W's column (WIFV), for heads squared once more as in the code;
    standardised over the site, then averaged over a unit's columns.
    """
    metric = variance * W.square().sum(dim=0)
    if site.kind == "attention":
        metric = metric.square()
    spread = metric.std().clamp(min=torch.finfo(metric.dtype).tiny)
    return per_unit((metric - metric.mean()) / spread, site) / site.columns


def adaptive_plan(scores: Mapping[str, Tensor], anatomy: Anatomy, budget: Budget) -> Plan:
    """The widths above the lowest threshold that fits the budget, added biases included.

    What is left, less than a head, goes to those units ranked next that still fit.

    Raises:
        BudgetError: the narrowest plan does not fit.
    """
    sites, limit = anatomy.sites, budget.limit(anatomy.sites)
    added = {site.name: _added_bias(anatomy, site) if budget.cost.of == "params" else 0 for site in sites}
    ranked = {name: each.sort(descending=True).values.tolist() for name, each in scores.items()}
    thresholds = [*sorted({score for each in ranked.values() for score in each}), float("inf")]

    def above(threshold: float) -> dict[str, int]:
        counts = {name: sum(score >= threshold for score in each) for name, each in ranked.items()}
        return {site.name: _legal(site, counts[site.name], budget) for site in sites}

    def fits(widths: Mapping[str, int]) -> bool:
        biases = sum(added[site.name] for site in sites if widths[site.name] < site.units)
        return budget.cost.of_plan(Plan(widths), sites) + biases <= limit

    # A higher threshold never costs more.
    lowest = bisect_left(thresholds, True, key=lambda threshold: fits(above(threshold)))
    if lowest == len(thresholds):
        raise BudgetError(
            f"keep {budget.keep:g} of {budget.cost.of}: FLAP's biases leave no room. Keep more."
        )
    widths = above(thresholds[lowest])
    while steps := [
        (ranked[site.name][widths[site.name]], wider)
        for site in sites
        if widths[site.name] < site.units and fits(wider := widths | {site.name: _next(site, widths, budget)})
    ]:
        _, widths = max(steps, key=lambda step: step[0])
    return Plan(widths, f"FLAP's global threshold (AL-AM, WIFV), keep {budget.keep:g} of {budget.cost.of}")


def _legal(site: Site, count: int, budget: Budget) -> int:
    if site.kind == "attention":
        return max(1, count)
    return min(budget.levels(site.units), key=lambda level: abs(level - count))


def _next(site: Site, widths: Mapping[str, int], budget: Budget) -> int:
    count = widths[site.name]
    levels = range(site.units + 1) if site.kind == "attention" else budget.levels(site.units)
    return next(level for level in levels if level > count)


def _added_bias(anatomy: Anatomy, site: Site) -> int:
    consumer = module_at(anatomy.blocks[site.block], site.consumer)
    return weight_of(consumer).shape[0] if consumer.bias is None else 0


def _into_bias(
    anatomy: Anatomy,
    site: Site,
    kept: Tensor,  # (count,) units
    mean: Tensor,  # (units * columns,)
) -> None:
    """Add W_dropped mean(Z_dropped) to the consumer's bias; make one where there is none."""
    block = anatomy.blocks[site.block]
    consumer = module_at(block, site.consumer)
    mean = mean.clone()
    mean[site.columns_of(kept)] = 0
    bias = consumer_weight(site, block) @ mean
    if consumer.bias is not None:
        bias += consumer.bias.detach().double()
    old = consumer.weight
    consumer.bias = nn.Parameter(bias.to(old.dtype), requires_grad=old.requires_grad)


PEERS: dict[str, Peer] = {
    "random": random_units,
    "magnitude": magnitude,
    "wanda-sp": wanda_sp,
    "flap": flap,
    "least-squares": least_squares,
    "mask-tuning": mask_tuning,
}
