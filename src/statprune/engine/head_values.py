"""Narrow the values of all heads of a block, behind the choice of heads, and fit what reads them.

Every head keeps as many columns of its values, the first of its basis (linalg/head_basis.py), found in the
thin stream; the output projection is then fitted to the same target as before.

Source: docs/algorithm.md, "Narrow values".
"""

from typing import Any

import torch
from torch import Tensor, nn

from statprune.anatomy.head_values import narrow_head_values
from statprune.anatomy.producers import module_at
from statprune.anatomy.sites import Site
from statprune.engine.owner import by_owner
from statprune.engine.passage import Passage
from statprune.engine.trace import Trace
from statprune.linalg.head_basis import head_basis, standardised_ridge
from statprune.linalg.moments import Moments
from statprune.surgery.linear import add_to_bias, held_by, set_weight, weight_of

LOCAL = 1e-5
"""Damping of the fit to what the reader makes of all columns, which they can all but say."""

DAMPING = 1e-2
"""And to what that lacks."""


def narrow_values(at: Passage, site: Site, count: int, trace: Trace, value_dim: int) -> None:
    """Keep `value_dim` columns of the values of every head; nothing where `site` has no values of its own."""
    if not site.values_apart or site.carrier is None:
        return
    values, reader = (module_at(at.block, path) for path in (site.carrier.path, site.consumer))
    outputs, columns = weight_of(reader).shape
    pair = at.pair(columns, outputs, reader.bias is not None)
    for seen, target in at.targets(site):
        at.add(pair, seen, seen[site.consumer], target if reader.bias is None else target - reader.bias)
    moments = [at.in_two(pair)]

    def change() -> None:
        found = moments.pop()
        if found is not None:
            _narrow(site, values, reader, found.whole(), value_dim)

    by_owner(at.ranks, 0, at.block, site, trace, change)
    narrow_head_values(values, reader, site.head_dim, value_dim)


def _narrow(site: Site, values: Any, reader: Any, whole: Moments, value_dim: int) -> None:
    A, W = narrowed(whole, weight_of(reader).double(), site, value_dim)
    shift = whole.shift(A @ W.T)
    each = A.reshape(len(A) // site.head_dim, site.head_dim, -1)
    own = [
        each[head, :, head * value_dim : (head + 1) * value_dim] for head in range(0, len(each), site.group)
    ]
    heads = torch.split(weight_of(values).double(), site.head_dim)
    made = torch.cat([basis.T @ rows for basis, rows in zip(own, heads, strict=True)])
    if values.bias is not None:
        parts = torch.split(values.bias.detach().double(), site.head_dim)
        bias = torch.cat([basis.T @ part for basis, part in zip(own, parts, strict=True)])
        values.bias = nn.Parameter(held_by(values.bias, bias), requires_grad=values.bias.requires_grad)
    set_weight(values, made)
    set_weight(reader, W)
    if reader.bias is not None:
        add_to_bias(reader, shift)


def narrowed(whole: Moments, W: Tensor, site: Site, value_dim: int) -> tuple[Tensor, Tensor]:
    """Each head's basis, (columns, kept), and the reader fitted to what it makes, (outputs, kept); float64.

    `whole` has the second moments of what the reader reads, and of what it should return; W (outputs,
    columns) is the reader's weight.
    """
    A = head_basis(whole.G, W, site.head_dim, site.group, value_dim)
    H, own = A.T @ whole.G @ A, whole.G @ W.T
    fit = standardised_ridge(H, A.T @ own, LOCAL) + standardised_ridge(H, A.T @ (whole.C - own), DAMPING)
    return A, fit.T
