"""Parameters and multiply-accumulates of a plan, counted over the prunable projections.

Counted are the weights and biases of attention and feed-forward in every block; norms, embeddings and heads
are reported apart. Per token, with hidden size d, head dimension d_h, g query heads a group and s tokens of
context: a group costs 2 g d d_h + 2 d d_h + 2 g s d_h MACs, a neuron 2 d (3 d with a gate) (STAT, section 4).
DeBERTa's heads are scored against relative positions besides; projecting those, once a pass, is not counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from statprune.anatomy.lookup import Anatomy
from statprune.anatomy.sites import Site
from statprune.budget.plan import Plan, full

Of = Literal["params", "macs", "latency"]


class Price(Protocol):
    """What a budget is a share of: it says what every width of every site costs."""

    @property
    def of(self) -> str:
        """The name of what is counted, or measured."""
        ...

    @property
    def counts(self) -> bool:
        """Whether costs are whole numbers."""
        ...

    def of_width(self, site: Site, width: int) -> float:
        """What `site` costs with `width` units."""
        ...

    def of_widths(self, site: Site, widths: Sequence[int]) -> NDArray[np.float64]:
        """The same for several widths at once, (len(widths),)."""
        ...

    def of_plan(self, plan: Plan, sites: Sequence[Site]) -> float:
        """What the prunable projections cost under `plan`."""
        ...

    def dense(self, sites: Sequence[Site]) -> float:
        """The same at full width."""
        ...


@dataclass(frozen=True)
class Cost:
    """What the budget is a share of: `of` parameters, or MACs per token at `context` tokens."""

    of: Literal["params", "macs"]
    context: int

    @property
    def counts(self) -> bool:
        """Costs are whole numbers."""
        return True

    def per_unit(self, site: Site) -> int:
        """Cost of one unit of `site`."""
        if self.of == "params":
            return site.parameters_per_unit
        return site.macs_per_unit + 2 * self.context * site.group * site.head_dim

    def fixed(self, site: Site) -> int:
        """Cost of `site` that no plan removes: its consumer's bias."""
        return site.parameters_fixed if self.of == "params" else 0

    def of_width(self, site: Site, width: int) -> int:
        """Cost of `site` with `width` units."""
        return self.fixed(site) + width * self.per_unit(site)

    def of_widths(self, site: Site, widths: Sequence[int]) -> NDArray[np.float64]:
        """The same for several widths at once, (len(widths),)."""
        return self.fixed(site) + np.array(widths, dtype=np.float64) * self.per_unit(site)

    def of_plan(self, plan: Plan, sites: Sequence[Site]) -> int:
        """Cost of the prunable projections under `plan`."""
        return sum(self.of_width(site, plan[site]) for site in with_value_dim(sites, plan.value_dim))

    def dense(self, sites: Sequence[Site]) -> int:
        """Cost at full width."""
        return self.of_plan(full(sites), sites)


def with_value_dim(sites: Sequence[Site], value_dim: int | None) -> Sequence[Site]:
    """The sites at the price of their units where values of heads keep so many columns; None: all.

    Between tokens zeros stand in for those that are gone, so that the scores cost what they did.
    """
    if value_dim is None:
        return sites
    return [_narrower(site, value_dim) if site.values_apart else site for site in sites]


def _narrower(site: Site, value_dim: int) -> Site:
    gone = site.value_dim - value_dim
    return replace(
        site,
        parameters_per_unit=site.parameters_per_unit - gone * site.parameters_per_column,
        macs_per_unit=site.macs_per_unit - gone * site.macs_per_column,
    )


def macs_of_pass(anatomy: Anatomy, rows: int, lengths: Sequence[int]) -> int:
    """MACs of all sites, as wide as they are, in one forward pass without a cache.

    Args:
        anatomy: the model's.
        rows: of the batch.
        lengths: tokens in a row of each stack, in the order of `anatomy.runs`; others read the first.
    """
    total = 0
    for run, own in zip(anatomy.runs, lengths, strict=True):
        for site in (site for site in anatomy.sites if run.start <= site.block < run.end):
            scores = 2 * site.group * site.head_dim
            if site.part != "cross_attention":
                total += site.units * own * (site.macs_per_unit + scores * own)
                continue
            read = sum(each.rows for each in site.producers if each.reads == "encoded")
            made = site.columns + sum(each.rows for each in site.producers)
            encoded = site.macs_per_unit * read // made  # all of them are as long as the hidden size
            total += site.units * (encoded * lengths[0] + own * (site.macs_per_unit - encoded))
            total += site.units * own * scores * lengths[0]
    return rows * total
