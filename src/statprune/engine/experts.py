"""Experts of a block, one by one: what each has read, the order of its neurons, and what all cost together.

Of the block's output an expert makes w W z for the tokens that it is given, w being the router's weight and z
its neurons. Tokens have few experts in common, so errors are taken to add up like those of separate sites:
squared, over the experts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from statprune.anatomy.producers import module_at
from statprune.anatomy.ranks import ALONE, Ranks, dealt, pooled
from statprune.anatomy.sites import Site
from statprune.budget.damage import widths_to_measure
from statprune.calibration.routing import Routed
from statprune.engine.probe import Candidates
from statprune.linalg.accumulator import Accumulator
from statprune.linalg.elimination import eliminate
from statprune.linalg.factor import Factor, Interpolation
from statprune.linalg.gram import Gram
from statprune.linalg.least_squares import ridge
from statprune.surgery.experts import neurons, sizes
from statprune.surgery.linear import weight_of

ROWS = 0.25
"""Tokens that an expert must be given for each of its neurons, for these to be told apart."""

FAINT = 1e-9
"""How active the neurons of an expert without tokens are taken to be: no curve sees it."""


def of_expert(experts: nn.Module, expert: int, routed: Routed) -> tuple[Tensor, Tensor]:
    """The tokens that one expert is given, (rows,), and its neurons there, weighted, (rows, units)."""
    tokens, weights = routed.given_to(expert)
    return tokens, neurons(experts, expert, routed.hidden[tokens]) * weights[:, None]


def told_apart(rows: int, units: int, spread: float) -> bool:
    """Whether an expert of so many units can be fitted on so many tokens; `spread` is its moments' trace."""
    return rows >= ROWS * units and spread > 0


class Readings:
    """What the experts of one site have read, batch by batch."""

    def __init__(self, site: Site, block: nn.Module, products: torch.dtype = torch.float32) -> None:
        self.site, self.module, self.products = site, module_at(block, site.consumer), products
        self._batches: list[tuple[Routed, Tensor]] = []

    def update(self, routed: Routed, row_weights: Tensor) -> None:
        """Note one batch, and how much each of its tokens counts, (tokens,)."""
        self._batches.append((routed, row_weights))

    def gram(self, expert: int) -> Gram:
        """Of one expert's neurons, times the router's weights, tokens weighted as by `update`."""
        gram = Gram(self.site.units, device=self.module.down_proj.device, product_dtype=self.products)
        for routed, row_weights in self._batches:
            tokens, Z = of_expert(self.module, expert, routed)
            gram.update(Z, row_weights[tokens])
        return gram

    def candidates(self, levels: Sequence[float], damping: float, ranks: Ranks = ALONE) -> Candidates:
        """Errors of the site's experts, and a few widths to try out; each process takes some experts."""
        W = weight_of(self.module).double()
        largest = sizes(self.module).argsort(dim=1, descending=True)
        own: dict[int, tuple[float, Tensor, Tensor]] = {}
        for expert, (gram,) in dealt(ranks, self.site.experts, lambda expert: [self.gram(expert)]):
            G = gram.matrix
            whole = float(((W[expert] @ G) * W[expert]).sum())
            if told_apart(gram.rows, len(G), float(G.trace())):
                found = eliminate(G, W[expert].T, damping=damping)
                own[expert] = (whole, found.order, found.errors)
            else:
                order = largest[expert]
                own[expert] = (whole, order, _uncorrected(G, W[expert], order))
        each = [known for _, known in sorted(pooled(ranks, own).items())]
        whole = sum(energy for energy, _, _ in each)
        if whole <= 0:
            return Candidates(np.zeros(self.site.units + 1))
        errors = torch.zeros(self.site.units + 1, dtype=torch.float64)
        for _, _, error in each:
            errors += error
        curve = (errors / whole).numpy()
        weights = [
            (width, self._narrowed([order[:width] for _, order, _ in each], W, damping, ranks))
            for width in widths_to_measure(curve, levels)
        ]
        return Candidates(curve, weights)

    def _narrowed(self, kept: Sequence[Tensor], W: Tensor, damping: float, ranks: Ranks) -> Tensor:
        """What the experts' weight becomes if only the neurons `kept` are read."""
        narrowed = torch.zeros_like(weight_of(self.module))
        own: dict[int, Tensor] = {}
        for expert, (gram,) in dealt(ranks, self.site.experts, lambda expert: [self.gram(expert)]):
            G, units = gram.matrix, kept[expert]
            if told_apart(gram.rows, len(G), float(G.trace())):
                own[expert] = ridge(G[units[:, None], units], G[units] @ W[expert].T, damping).X.T
            else:
                own[expert] = W[expert][:, units]
        for expert, fitted in pooled(ranks, own).items():
            narrowed[expert][:, kept[expert]] = fitted.to(narrowed.dtype)
        return narrowed


def _uncorrected(G: Tensor, W: Tensor, order: Tensor) -> Tensor:
    """Squared errors of keeping the first neurons of `order` as they are, (units + 1,), never increasing."""
    products = (G * (W.T @ W))[order[:, None], order].flip(0, 1)
    left = products.cumsum(0).cumsum(1).diagonal()
    return torch.cat([left.new_zeros(1), left.cummax(0).values]).flip(0).cpu()


class ExpertSums:
    """What the neurons of all experts of one site add up to, each in an accumulator of its own."""

    def __init__(self, site: Site, block: nn.Module, sums: Sequence[Accumulator]) -> None:
        self.site, self.module, self.sums = site, module_at(block, site.consumer), sums

    def update(self, routed: Routed) -> None:
        """Take in one batch."""
        for expert, each in enumerate(self.sums):
            tokens, Z = of_expert(self.module, expert, routed)
            if len(tokens):
                each.update(Z)

    def factor(self) -> "ExpertFactors":
        """Of every expert, neurons scaled by the norms of what reads them."""
        scales = weight_of(self.module).double().norm(dim=1)
        largest = sizes(self.module) / scales.clamp(min=torch.finfo(scales.dtype).tiny)
        factors, unseen = [], []
        for expert, each in enumerate(self.sums):
            known: Any = each
            if each.rows < ROWS * self.site.units:
                # As if its neurons were orthogonal: the largest come first, and none stands in for another.
                known = Gram(self.site.units, device=scales.device)
                known.update(torch.diag(largest[expert] / largest[expert].max() * FAINT))
                unseen.append(expert)
            factors.append(known.factor(scale=scales[expert]))
        return ExpertFactors(factors, tuple(unseen))


@dataclass(frozen=True, eq=False)
class ExpertFactors:
    """A factor of every expert; it answers for all of them together what a `Factor` does for one site.

    `unseen` are the experts that got too few tokens.
    """

    factors: Sequence[Factor]
    unseen: tuple[int, ...]

    def errors(self, weight: Tensor | None = None) -> Tensor:
        """As those of a factor, over all experts; `weight` (experts, out, units)."""
        each = [f.errors(None if weight is None else weight[e]) for e, f in enumerate(self.factors)]
        return torch.stack(each).square().sum(dim=0).sqrt()

    def pivot_norms(self) -> Tensor:
        """As those of a factor, over all experts."""
        return torch.stack([factor.pivot_norms() for factor in self.factors]).square().sum(dim=0).sqrt()

    def interpolation(self, count: int) -> Interpolation:
        """As that of a factor, a row of everything for each expert; the condition is the worst."""
        parts = [factor.interpolation(count) for factor in self.factors]
        return Interpolation(
            kept=torch.stack([part.kept for part in parts]),
            kept_columns=torch.stack([part.kept_columns for part in parts]),
            T=torch.stack([part.T for part in parts]),
            condition=max(part.condition for part in parts),
            rank=min(part.rank for part in parts),
        )
