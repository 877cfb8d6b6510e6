"""Refine an allocation by trying its neighbours out: a short coordinate search on held-out divergence.

A survey narrows one site at a time, in a network that is dense otherwise. Two things it cannot see: how far
later sites make good what earlier ones lose, and how attention and feed-forward do so for each other. So two
numbers tilt the damage curves, one from the first block to the last and one from attention to feed-forward;
for each tilt the plan is made, refitted on a part of the data and measured, and the best one wins.

Source: coordinate search, as in Sieberling et al., "EvoPress", ICML 2025, which mutates widths one by one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import exp

from statprune.anatomy.sites import Site, blocks_of
from statprune.budget.damage import DamageCurve, DamageCurves
from statprune.budget.plan import Plan

TRIALS = 7
"""Plans that are refitted and measured, at most."""

STEP = 0.7
"""Of either tilt, in the logarithm of the damage; halved once no neighbour is better."""


@dataclass(frozen=True)
class Trial:
    """A plan that was tried: its tilts, and the divergence that was measured."""

    depth: float
    kind: float
    divergence: float


def tilted(curves: DamageCurves, sites: Sequence[Site], depth: float, kind: float) -> dict[str, DamageCurve]:
    """The curves with damages scaled by exp(depth (block / last - 1/2)), and exp(kind / 2) for attention."""
    last = max(1, blocks_of(sites) - 1)
    made = {}
    for site in sites:
        sign = 0.5 if site.kind == "attention" else -0.5
        factor = exp(depth * (site.block / last - 0.5) + kind * sign)
        curve = curves[site.name]
        made[site.name] = replace(curve, measured=[(k, damage * factor) for k, damage in curve.measured])
    return made


def search(
    curves: DamageCurves,
    sites: Sequence[Site],
    allocate: Callable[[DamageCurves], Plan],
    measure: Callable[[Plan], float],
    *,
    trials: int = TRIALS,
) -> tuple[Plan, list[Trial]]:
    """The plan of least measured divergence among those tried, and all trials, the untilted one first.

    Args:
        curves: of every site.
        sites: the model's.
        allocate: curves -> plan.
        measure: plan -> divergence once it is carried out; leaves the model as it was.
        trials: how many plans are measured, at most; equal plans are measured once.
    """
    measured: dict[tuple[int | None, ...], float] = {}
    tried: list[Trial] = []

    def at(depth: float, kind: float) -> tuple[float, Plan] | None:
        plan = allocate(tilted(curves, sites, depth, kind))
        key = plan.key
        if key not in measured:
            if len(measured) >= trials:
                return None
            measured[key] = measure(plan)
            tried.append(Trial(depth, kind, measured[key]))
        return measured[key], plan

    start = at(0.0, 0.0)
    if start is None:
        raise ValueError(f"{trials} trials; give at least 1.")
    best, plan = start
    place, step = (0.0, 0.0), STEP
    while len(measured) < trials and step > STEP / 5:
        moved = False
        for move in ((step, 0.0), (-step, 0.0), (0.0, step), (0.0, -step)):
            found = at(place[0] + move[0], place[1] + move[1])
            if found is not None and found[0] < best:
                (best, plan), place, moved = found, (place[0] + move[0], place[1] + move[1]), True
        step = step if moved else step / 2
    return plan, tried
