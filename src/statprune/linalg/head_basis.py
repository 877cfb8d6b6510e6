"""The columns of every head turned so that the first ones matter most to what reads them.

Z (rows, heads * width) is read by W (outputs, heads * width). Within a head Z_h and W_h can be turned, Z_h
A and W_h A^-T, and nothing changes. With L L^T = Z_h^T Z_h and L^T W_h^T = U S V^T, A = L^-T U makes
columns that are orthonormal over the rows, as G weighs them, and of which keeping the first k is the best
approximation of Z_h W_h^T of rank k. Heads that share their values are turned alike, by the sum of their
moments and with all that reads them.

Source: Eckart & Young 1936, in the metric of the activations, as Lin et al., "MoDeGPT", ICLR 2025, section
3.3, has it for values and outputs.
"""

import warnings

import torch
from torch import Tensor

from statprune.errors import NumericalError, NumericalWarning
from statprune.linalg.least_squares import damped_factor, ridge

DAMPING = 1e-4
"""Of a head's second moments, as a share of their mean diagonal."""

NOISE = 8 * torch.finfo(torch.float32).eps
"""Of a head's largest second moment: less says nothing where products were formed in float32."""

TINY = 1e-12
"""Of the largest head's: a head that adds nothing has some noise, too."""

RESCUES = (1, 10, 100)
"""Times the noise that is added, at most."""


def head_basis(
    G: Tensor,  # (heads * width, heads * width) second moments of Z
    W: Tensor,  # (outputs, heads * width)
    width: int,
    group: int = 1,
    count: int | None = None,
) -> Tensor:
    """A (heads * width, heads * count), float64: of each head's basis the first `count` columns.

    `group` heads that follow each other share one; `count` is `width` if not given. Columns have length 1.

    Raises:
        NumericalError: the damped moments of a head have no Cholesky factor, whatever the rescue.
    """
    count = width if count is None else count
    heads = len(G) // width
    found = torch.zeros(len(G), heads * count, dtype=torch.float64, device=G.device)
    for start in range(0, heads, group):
        parts = [slice(head * width, (head + 1) * width) for head in range(start, start + group)]
        moments = torch.stack([G[part, part] for part in parts]).sum(dim=0).double()
        if not float(moments.trace()) > 0:
            moments = torch.eye(width, dtype=torch.float64, device=G.device)
        lower = damped_factor(moments, DAMPING).lower
        reads = torch.cat([W[:, part] for part in parts]).double()
        U = torch.linalg.svd(lower.T @ reads.T, full_matrices=True).U
        basis = torch.linalg.solve_triangular(lower.T, U[:, :count], upper=True)
        basis = basis / basis.norm(dim=0)
        for head, part in enumerate(parts, start):
            found[part, head * count : (head + 1) * count] = basis
    return found


def noise_of(
    G: Tensor,  # (heads * width, heads * width) second moments of Z
    width: int,
    count: int,
) -> Tensor:
    """(heads * count,) what may be rounding in the moments of `count` columns made of each head's."""
    most = G.diagonal().reshape(-1, width).amax(dim=1)
    return NOISE * most.clamp(min=float(most.max()) * TINY).repeat_interleave(count)


def standardised_ridge(
    G: Tensor,  # (m, m) second moments
    C: Tensor,  # (m, columns)
    damping: float,
    noise: Tensor,  # (m,) as `noise_of` has it
) -> Tensor:
    """X with (G + max(damping * diag G, noise)) X = C: columns lose alike, large or small, above the noise.

    Where products were formed in float32, columns that are all but zero have moments of any sign, and the
    more of them there are the more they add up to: if the matrix has no factor, the noise is taken for ten
    times, and for a hundred times as much, with a warning.

    Raises:
        NumericalError: no usable factor then either.
    """
    energy = G.diagonal()
    if not bool((energy > 0).any()):
        return torch.zeros_like(C)
    for rescue in RESCUES:
        try:
            X = _standardised(G, C, torch.maximum(damping * energy, rescue * noise))
        except NumericalError:
            if rescue == RESCUES[-1]:
                raise
            continue
        if rescue > 1:
            warnings.warn(
                f"{len(G)} columns of heads' values: {rescue:g} times the noise that float32 makes is added "
                f"to their moments, which have no factor otherwise. Few tokens, or few that differ?",
                NumericalWarning,
                stacklevel=2,
            )
        break
    return X


def _standardised(G: Tensor, C: Tensor, added: Tensor) -> Tensor:
    damped = G + torch.diag(added)
    scale = damped.diagonal().clamp(min=float(added.min())).sqrt()
    return ridge(damped / torch.outer(scale, scale), C / scale[:, None]).X / scale[:, None]
