"""Curves + costs + a share to keep -> plan.

`published` is STAT's rule (STAT, section 4; the authors' scripts where the text leaves a choice open);
`uniform` keeps the same widths in every block.
"""

import heapq
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import ceil, floor, lcm, sqrt

from statprune.anatomy.parts import Kind
from statprune.anatomy.sites import Site, blocks_of
from statprune.budget.cost import Price
from statprune.budget.curves import Curve, Curves
from statprune.budget.plan import Plan
from statprune.budget.restrictions import Restrictions
from statprune.errors import BudgetError


@dataclass(frozen=True)
class Budget:
    """Keep at most `keep`, a share in (0, 1], of the dense `cost`; neuron counts are multiples of `multiple`.

    Full width is always legal, whatever the multiple.
    """

    keep: float
    cost: Price
    multiple: int = 8
    restrictions: Restrictions = field(default_factory=Restrictions)

    def limit(self, sites: Sequence[Site]) -> float:
        """The most that a plan may cost; a whole number of what is counted."""
        most = self.keep * self.cost.dense(sites)
        return floor(most + 1e-6) if self.cost.counts else most

    def _narrowest(self) -> str:
        limits = self.restrictions
        heads = "the fewest heads that stock transformers can open" if limits.only else "one head (group)"
        least = f"{heads} and {self.multiple} neurons in every block"
        if not (limits.floors or limits.protect or limits.pins):
            return least
        return f"floors, pins and protected blocks, and else {least},"

    def smallest(self, site: Site) -> int:
        """The least that `site` may keep."""
        return 1 if site.kind == "attention" else min(self.step(site), site.units)

    def step(self, site: Site) -> int:
        """Neurons of `site` go in whole multiples of this."""
        return lcm(self.multiple, site.step)

    def widths(self, site: Site, blocks: int) -> list[int]:
        """Legal widths of `site` in a model of so many blocks, ascending; a pinned one is legal as it is."""
        if site.name in self.restrictions.pins:
            return [self.restrictions.pins[site.name]]
        levels = self.levels(site.units, self.step(site))
        legal = [*range(1, site.units + 1)] if site.kind == "attention" else levels
        return [width for width in legal if self.restrictions.allows(site, width, blocks)]

    def levels(self, units: int, step: int | None = None) -> list[int]:
        """Legal neuron counts up to `units`, ascending."""
        step = step or self.multiple
        return [*range(step, units, step), units]

    def in_common(self, sites: Sequence[Site]) -> tuple[list[int], list[dict[str, int]]]:
        """Head counts that all attention sites may have, and neuron counts that all others may, by part.

        Raises:
            BudgetError: pins, floors and protected blocks leave sites no width in common.
        """
        (attention, forward), blocks = _by_kind(sites), blocks_of(sites)
        neurons = {
            part: self._shared([site for site in forward if site.part == part], blocks)
            for part in dict.fromkeys(site.part for site in forward)
        }
        return (self._shared(attention, blocks) if attention else [0]), tied(neurons)

    def _shared(self, sites: Sequence[Site], blocks: int) -> list[int]:
        legal = {site.name: self.widths(site, blocks) for site in sites}
        shared = set.intersection(*map(set, legal.values()))
        if not shared:
            told = ", ".join(f"{name} {_told(widths)}" for name, widths in legal.items())
            raise BudgetError(
                f"no width is legal in every block: {told}. Lift pins, floors or protection, or take "
                f"per-layer widths."
            )
        return sorted(shared)

    def least(self, sites: Sequence[Site], *, same: bool = False) -> Plan:
        """The narrowest plan; with `same`, of those with equal blocks."""
        if not same:
            return Plan({site.name: self.widths(site, blocks_of(sites))[0] for site in sites})
        heads, neurons = self.in_common(sites)
        return Plan({s.name: heads[0] if s.kind == "attention" else neurons[0][s.part] for s in sites})

    def require_reachable(
        self, sites: Sequence[Site], *, same: bool = False, value_dim: int | None = None
    ) -> None:
        """Refuse a share below what the narrowest plan costs; with `same`, of those with equal blocks.

        Its heads keep `value_dim` columns of their values; None: all.

        Raises:
            BudgetError: with the smallest share that can be reached.
        """
        least = replace(self.least(sites, same=same), value_dim=value_dim)
        cost, dense = self.cost.of_plan(least, sites), self.cost.dense(sites)
        if cost > self.limit(sites):
            share = ceil(cost / dense * 1e4) / 1e4
            remedy = "Keep at least that much"
            if same and self.restrictions:
                remedy += (
                    ", or take per-layer widths: where blocks are equal, one block's limit is every block's"
                )
            raise BudgetError(
                f"keep {self.keep:g} of {self.cost.of} cannot be reached: with {self._narrowest()} "
                f"{share:.4f} is left. {remedy}."
            )


def _told(widths: Sequence[int]) -> str:
    return f"{widths[0]} to {widths[-1]}" if len(widths) > 3 else " or ".join(map(str, widths))


def uniform(curves: Curves, sites: Sequence[Site], budget: Budget) -> Plan:
    """The same heads and the same neurons in every block, as close below the budget as neurons allow.

    Of all head counts, the one whose relative squared output errors, summed over all sites, are least.

    Raises:
        BudgetError: no pair of widths fits.
    """
    attention, forward = _by_kind(sites)
    best: tuple[float, Plan] | None = None
    blocks = blocks_of(sites)
    legal = [set(budget.widths(site, blocks)) for site in attention]
    levels = _levels_in_common(forward, budget)
    for heads in sorted(set.intersection(*legal)) if legal else (0,):
        widths = {site.name: heads for site in attention}
        spare = budget.limit(sites) - _cost_of(widths, attention, budget.cost)
        fitting = [neurons for neurons, cost in levels if cost <= spare]
        if not fitting:
            continue
        neurons = fitting[-1]
        widths |= neurons
        error = sum(float(curves[name].relative()[count]) for name, count in widths.items())
        if best is None or error < best[0]:
            best = error, _plan(widths, sites, f"uniform, keep {budget.keep:g} of {budget.cost.of}")
    if best is None:
        raise BudgetError(
            f"keep {budget.keep:g} of {budget.cost.of}: no uniform widths fit. "
            f"Keep more, or use per-layer widths."
        )
    return best[1]


def published(curves: Curves, sites: Sequence[Site], budget: Budget, kind: Kind) -> Plan:
    """STAT's allocation: one threshold over all neurons, one over all heads, and its split between the two.

    Errors are weighted by sqrt(L - l + 1) + 1 in block l of L for encoders; decoders use no weights. Among
    the head counts that fit the budget it takes the one whose cut-off error is nearest to twice the mean
    trailing neuron error. At least one unit stays everywhere. As in the authors' scripts the head counts
    tried are whole averages per block, and the mean trailing error ||R22||_F bears no depth weight.

    Raises:
        BudgetError: no head count leaves room for the fewest neurons.
    """
    attention, forward = _by_kind(sites)
    depth = {site.name: _depth_weight(site, len(attention), kind) for site in sites}
    most = max((site.units for site in attention), default=0)
    ladders = [_Ladder.of(site, curves[site.name], depth[site.name], budget) for site in forward]
    best: tuple[float, dict[str, int]] | None = None
    for heads in range(1, most + 1) if attention else (0,):
        kept, cutoff = _heads_above(curves, attention, depth, heads * len(attention))
        spare = budget.limit(sites) - _cost_of(kept, attention, budget.cost)
        neurons = _neurons_above(ladders, spare)
        if neurons is None:
            continue
        trailing = [float(curves[name].trailing[count]) for name, count in neurons.items()]
        distance = abs(cutoff - 2 * sum(trailing) / len(trailing))
        if best is None or distance < best[0]:
            best = distance, kept | neurons
    if best is None:
        raise BudgetError(f"keep {budget.keep:g} of {budget.cost.of}: no head count fits. Keep more.")
    return _plan(best[1], sites, f"published thresholds, keep {budget.keep:g} of {budget.cost.of}")


def _plan(widths: Mapping[str, int], sites: Sequence[Site], why: str) -> Plan:
    return Plan({site.name: widths[site.name] for site in sites}, why)


def _by_kind(sites: Sequence[Site]) -> tuple[list[Site], list[Site]]:
    return [s for s in sites if s.kind == "attention"], [s for s in sites if s.kind == "feed_forward"]


def _cost_of(widths: Mapping[str, int], sites: Sequence[Site], cost: Price) -> float:
    return sum(cost.of_width(site, widths[site.name]) for site in sites)


def _depth_weight(site: Site, blocks: int, kind: Kind) -> float:
    return sqrt(blocks - site.block) + 1 if kind == "encoder" else 1.0


def _levels_in_common(forward: Sequence[Site], budget: Budget) -> list[tuple[dict[str, int], float]]:
    """Neurons of every site that all blocks may have, ascending, and what they cost."""
    narrowest: dict[str, Site] = {}
    for site in sorted(forward, key=lambda site: site.units):
        narrowest.setdefault(site.part, site)
    found = []
    for by_part in tied({part: budget.levels(s.units, budget.step(s)) for part, s in narrowest.items()}):
        widths = {site.name: by_part[site.part] for site in forward}
        found.append((widths, _cost_of(widths, forward, budget.cost)))
    return found


def tied(levels: Mapping[str, Sequence[int]]) -> list[dict[str, int]]:
    """Widths of all parts together, from the legal ones of each, ascending.

    Where there are several parts, such as experts beside a shared one, the width of the one that has most
    levels says the share that the others keep, rounded down to a legal width.
    """
    finest = max(levels.values(), key=len, default=[0])
    return [
        {
            part: legal[max(0, bisect_right(legal, level * legal[-1] // finest[-1]) - 1)]
            for part, legal in levels.items()
        }
        for level in finest
    ]


def _heads_above(
    curves: Curves, attention: Sequence[Site], depth: Mapping[str, float], total: int
) -> tuple[dict[str, int], float]:
    """The `total` heads with the largest weighted errors, one everywhere first, and the smallest error kept.

    The cut-off of keeping every head is 0.
    """
    kept = {site.name: 1 for site in attention}
    steps = [
        (float(curves[site.name].steps[count]) * depth[site.name], site.name)
        for site in attention
        for count in range(1, site.units)
    ]
    steps.sort(key=lambda step: -step[0])
    chosen = steps[: max(0, total - len(attention))]
    for _, name in chosen:
        kept[name] += 1
    forced = [float(curves[site.name].steps[0]) * depth[site.name] for site in attention]
    cutoff = 0.0 if len(chosen) == len(steps) else min([error for error, _ in chosen] or forced)
    return kept, cutoff


@dataclass(frozen=True)
class _Ladder:
    """Legal widths of a site from the least on, their costs, and the weighted mean |R_kk| up to the next."""

    name: str
    widths: list[int]
    costs: list[float]
    gains: list[float]

    @classmethod
    def of(cls, site: Site, curve: Curve, weight: float, budget: Budget) -> "_Ladder":
        least = budget.smallest(site)
        widths = [width for width in budget.levels(site.units, budget.step(site)) if width >= least]
        means = [curve.steps[here:after].mean() for here, after in pairwise(widths)]
        return cls(
            site.name,
            widths,
            [budget.cost.of_width(site, width) for width in widths],
            [float(mean) * weight for mean in means],
        )


def _neurons_above(ladders: Sequence[_Ladder], spare: float) -> dict[str, int] | None:
    """Neurons by falling weighted |R_kk|, in steps of the multiple, until nothing more fits into `spare`."""
    left = spare - sum(ladder.costs[0] for ladder in ladders)
    if left < 0:
        return None
    rungs = [0] * len(ladders)
    queue = [(-ladder.gains[0], position) for position, ladder in enumerate(ladders) if ladder.gains]
    heapq.heapify(queue)
    while queue:
        _, position = heapq.heappop(queue)
        ladder, rung = ladders[position], rungs[position]
        price = ladder.costs[rung + 1] - ladder.costs[rung]
        if price > left:
            continue
        left -= price
        rungs[position] = rung = rung + 1
        if rung < len(ladder.gains):
            heapq.heappush(queue, (-ladder.gains[rung], position))
    return {ladder.name: ladder.widths[rung] for ladder, rung in zip(ladders, rungs, strict=True)}
