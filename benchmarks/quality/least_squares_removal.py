"""Layer-wise least squares, one unit at a time: the peer of the OSSCAR and ZipLM kind.

Removing unit u from a consumer W, and refitting all other columns, costs exactly

    || W_u ||^2 measured in [(H^-1)_uu]^-1,    H = G + ridge,    G = Z^T Z

(the optimal brain surgeon in block form). The cheapest unit goes, W and H^-1 follow exactly, and again.

Sources: Kurtic, Frantar, Alistarh, "ZipLM", NeurIPS 2023, arXiv 2302.04089, section 3; Meng et al., "OSSCAR",
ICML 2024, arXiv 2403.12983, section 3, and its released code for what the text leaves open.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from transformers import PreTrainedModel

from statprune.anatomy.lookup import Anatomy
from statprune.budget.allocate import Budget
from statprune.budget.plan import Plan
from statprune.calibration.batches import Batch
from statprune.calibration.stream import advance, before_first_block
from statprune.engine.measure import consumer_weight, through_block
from statprune.linalg.gram import Gram
from statprune.surgery.cut import cut

from .widths import staying, uniform_plan

DAMPING = 1e-2
"""Ridge as a share of the mean diagonal of G: the default of OSSCAR, ZipLM and SparseGPT."""


@torch.no_grad()
def least_squares(
    model: PreTrainedModel,
    anatomy: Anatomy,
    batches: Sequence[Batch],
    budget: Budget,
    generator: torch.Generator,
) -> Plan:
    """OSSCAR / ZipLM at uniform widths: choose and update by layer-wise least squares, site after site.

    Every site is fitted on the activations of the model pruned so far, towards what its own dense weights
    make of them. As in both codes: ridge 1e-2 of the mean diagonal, which also holds the solution to the
    dense weights (the right-hand side is (G + ridge) W^T), and columns that are never active start at zero.

    Differs from OSSCAR's code in removing one unit at a time, as ZipLM does, where its defaults take 10
    neurons or 2 heads at once; in measuring the feed-forward behind the attention that is already cut, where
    it measures both at once; and in having no local search by swaps, which its script leaves off unless
    asked. Differs from ZipLM in its widths, which there are searched for on measured latency, with training
    in between.
    """
    plan = uniform_plan(anatomy.sites, budget)
    stream = before_first_block(model, anatomy, batches)
    for index, block in enumerate(anatomy.blocks):
        for site in anatomy.sites_of_block(index):
            if plan[site] == site.units:
                continue
            seen = through_block(staying(stream), block, index, [site], partial(Gram, device=model.device))
            gram = seen[site.name].matrix
            weight = consumer_weight(site, block).to(gram.device)
            kept, weight = remove_units(weight, gram, unit=site.columns, count=plan[site])
            cut(block, site, kept, weight)
        advance(stream, block, index)
    return plan


def remove_units(
    W: Tensor,  # (out, m) float64
    G: Tensor,  # (m, m) float64
    *,
    unit: int,
    count: int,
    damping: float = DAMPING,
) -> tuple[Tensor, Tensor]:
    """The `count` units left, sorted (count,) int64, and their refitted columns (out, count * unit).

    After every removal W minimises ||Z (V - W)^T||_F^2 + ridge ||V - W||_F^2 over all V that are zero at the
    units removed. Cost: (units - count) * unit * m * (m + out).

    The inverse itself is held, by `cholesky_inverse`: every step needs all its diagonal blocks anew, which a
    downdate of the inverse gives at the price of one product where solves would factor again. The ridge
    bounds the condition of H by m / damping + 1, so float64 keeps ten digits.
    """
    W, H = W.clone(), G.clone()
    units = H.shape[0] // unit
    W[:, H.diagonal() == 0] = 0
    H.diagonal().add_(damping * H.diagonal().mean())
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(H))
    removed = torch.zeros(units, dtype=torch.bool, device=H.device)
    for _ in range(units - count):
        costs = torch.where(removed, torch.inf, removal_costs(W, inverse, unit))
        u = int(costs.argmin())
        own = torch.arange(u * unit, (u + 1) * unit, device=H.device)
        lower = torch.linalg.cholesky(inverse[own[:, None], own])
        row = torch.linalg.solve_triangular(lower, inverse[own], upper=False)  # (unit, m)
        step = torch.linalg.solve_triangular(lower, W[:, own].T, upper=False)  # (unit, out)
        W.addmm_(step.T, row, alpha=-1)
        inverse.addmm_(row.T, row, alpha=-1)
        # Exact zeros where rounding left 1e-17, and a block that can be factored beside those still there.
        W[:, own] = 0
        inverse[own], inverse[:, own] = 0, 0
        inverse[own, own] = 1
        removed[u] = True
    kept = (~removed).nonzero().flatten()
    columns = (kept[:, None] * unit + torch.arange(unit, device=H.device)).flatten()
    return kept, W[:, columns]


def removal_costs(
    W: Tensor,  # (out, m)
    inverse: Tensor,  # (m, m)
    unit: int,
) -> Tensor:
    """tr(W_u [(H^-1)_uu]^-1 W_u^T) of every unit, (units,): what removing it alone and refitting adds."""
    if unit == 1:
        return W.square().sum(dim=0) / inverse.diagonal()
    units = W.shape[1] // unit
    blocks = inverse.reshape(units, unit, units, unit).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
    lower = torch.linalg.cholesky(blocks)
    columns = W.T.reshape(units, unit, -1)
    return torch.linalg.solve_triangular(lower, columns, upper=False).square().sum(dim=(1, 2))
