"""Narrow the values of all heads of a block, behind the choice of heads, and fit what reads them.

Every head keeps as many columns of its values, the first of its basis (linalg/head_basis.py), found in the
thin stream; the output projection is then fitted to the same target as before.

Source: docs/algorithm.md, "Narrow values".
"""

from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from statprune.anatomy.head_values import narrow_head_values
from statprune.anatomy.producers import Carrier, module_at
from statprune.anatomy.sites import Site
from statprune.linalg.head_basis import head_basis, noise_of, standardised_ridge
from statprune.linalg.moments import Moments
from statprune.surgery.linear import add_to_bias, held_by, set_weight, weight_of

LOCAL = 1e-5
"""Damping of the fit to what the reader makes of all columns, which they can all but say."""

DAMPING = 1e-2
"""And to what that lacks."""


def narrow_values(block: nn.Module, site: Site, seen: Moments, value_dim: int) -> Tensor:
    """Keep `value_dim` columns of the values of every head of `site`, which has been cut, and fit its reader.

    `seen` are moments of what the reader reads, and of what it should return, less the bias that it had
    before the cut. Returns the basis (columns, kept), float64. Behind it, `narrow_heads` has the modules
    compute that way.
    """
    values, reader = _two(block, site)
    W = weight_of(reader).double()
    A, fitted = narrowed(seen, W, site, value_dim)
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
    set_weight(reader, fitted)
    if reader.bias is not None:
        add_to_bias(reader, seen.shift(A @ fitted.T) - seen.shift(W.T))
    return A


def narrow_heads(block: nn.Module, site: Site, value_dim: int) -> None:
    """Have values and their reader, whose weights are as narrow as that, compute with such heads."""
    narrow_head_values(*_two(block, site), site.head_dim, value_dim)


def with_narrow_carrier(site: Site, value_dim: int) -> Site:
    """The site with as many rows of values for a unit as there are then; all else is that of whole ones."""
    return replace(site, carrier=replace(cast(Carrier, site.carrier), rows=value_dim))


def _two(block: nn.Module, site: Site) -> tuple[Any, Any]:
    """The value projection and what reads values."""
    return module_at(block, cast(Carrier, site.carrier).path), module_at(block, site.consumer)


def narrowed(whole: Moments, W: Tensor, site: Site, value_dim: int) -> tuple[Tensor, Tensor]:
    """Each head's basis, (columns, kept), and the reader fitted to what it makes, (outputs, kept); float64.

    `whole` has the second moments of what the reader reads, and of what it should return; W (outputs,
    columns) is the reader's weight.
    """
    A = head_basis(whole.G, W, site.head_dim, site.group, value_dim)
    H, own = A.T @ whole.G @ A, whole.G @ W.T
    noise = noise_of(whole.G, site.head_dim, value_dim)
    fit = standardised_ridge(H, A.T @ own, LOCAL, noise)
    return A, (fit + standardised_ridge(H, A.T @ (whole.C - own), DAMPING, noise)).T
