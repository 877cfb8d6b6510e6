"""What the peers with uniform widths share: the rule that sets them, and a cut without correction."""

from collections.abc import Sequence

import torch
from torch import Tensor

from statprune.anatomy.lookup import Anatomy
from statprune.anatomy.producers import module_at
from statprune.anatomy.sites import Site
from statprune.budget.allocate import Budget
from statprune.budget.plan import Plan
from statprune.calibration.stream import Stream
from statprune.errors import BudgetError
from statprune.surgery.cut import cut
from statprune.surgery.linear import weight_of


def uniform_widths(sites: Sequence[Site], budget: Budget) -> dict[str, int]:
    """The same share of heads (key-value groups) and of neurons in every block, as nearly as they allow.

    The number of heads is the one nearest to `keep` x heads (of two equally near the larger) that leaves room
    for the fewest neurons; then come as many neurons as fit, in legal steps. No error curve is read, so the
    widths depend on shapes and budget alone.

    Raises:
        BudgetError: one head and the fewest neurons in every block cost too much.
    """
    attention = [site for site in sites if site.kind == "attention"]
    forward = [site for site in sites if site.kind == "feed_forward"]
    heads = min(site.units for site in attention)
    levels = budget.levels(min(site.units for site in forward))
    limit = budget.limit(sites)
    for count in sorted(range(1, heads + 1), key=lambda each: (abs(each - budget.keep * heads), -each)):
        for level in reversed(levels):
            widths = {site.name: count if site.kind == "attention" else level for site in sites}
            if budget.cost.of_plan(Plan(widths), sites) <= limit:
                return widths
    raise BudgetError(f"keep {budget.keep:g} of {budget.cost.of}: no uniform widths fit. Keep more.")


def uniform_plan(sites: Sequence[Site], budget: Budget) -> Plan:
    """The plan of `uniform_widths`."""
    why = f"same share of heads and neurons in every block, keep {budget.keep:g} of {budget.cost.of}"
    return Plan(uniform_widths(sites, budget), why)


def strongest(
    scores: Tensor,  # (units,)
    count: int,
) -> Tensor:
    """The `count` units of largest score, sorted, (count,) int64; of equal ones the earlier."""
    return scores.argsort(descending=True, stable=True)[:count].sort().values


def keep_uncorrected(
    anatomy: Anatomy,
    site: Site,
    kept: Tensor,  # (count,) int64, sorted units
) -> None:
    """Cut `site` to the units `kept`; its consumer keeps their columns as they are."""
    block = anatomy.blocks[site.block]
    weight = weight_of(module_at(block, site.consumer))
    columns = site.columns_of(kept.to(weight.device))
    cut(block, site, kept, weight[:, columns])


def staying(stream: Stream) -> Stream:
    """A second handle on `stream`: advancing it leaves `stream` in front of the same block."""
    return stream.fork()


def per_unit(
    columns: Tensor,  # (units * site.columns,)
    site: Site,
) -> Tensor:
    """The sum of each unit's columns, (units,)."""
    return columns.reshape(-1, site.columns).sum(dim=1)


def all_units(site: Site) -> Tensor:
    """Every unit of `site`, (units,) int64."""
    return torch.arange(site.units)
