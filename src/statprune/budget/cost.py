"""Parameters and multiply-accumulates of a plan, counted over the prunable projections.

Counted are the weights and biases of attention and feed-forward in every block; norms, embeddings and heads
are reported apart. Per token, with hidden size d, head dimension d_h, g query heads a group and s tokens of
context: a group costs 2 g d d_h + 2 d d_h + 2 g s d_h MACs, a neuron 2 d (3 d with a gate) (STAT, section 4).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from statprune.anatomy.sites import Site
from statprune.budget.plan import Plan, full

Of = Literal["params", "macs"]


@dataclass(frozen=True)
class Cost:
    """What the budget is a share of: `of` parameters, or MACs per token at `context` tokens."""

    of: Of
    context: int

    def per_unit(self, site: Site) -> int:
        """Cost of one unit of `site`."""
        if self.of == "params":
            return site.parameters_per_unit
        return site.macs_per_unit + 2 * self.context * site.group * site.head_dim

    def fixed(self, site: Site) -> int:
        """Cost of `site` that no plan removes: its consumer's bias."""
        return site.parameters_fixed if self.of == "params" else 0

    def of_plan(self, plan: Plan, sites: Sequence[Site]) -> int:
        """Cost of the prunable projections under `plan`."""
        return sum(self.fixed(site) + plan[site] * self.per_unit(site) for site in sites)

    def dense(self, sites: Sequence[Site]) -> int:
        """Cost at full width."""
        return self.of_plan(full(sites), sites)
