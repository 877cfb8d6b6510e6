"""The columns of every head turned so that the first ones matter most to what reads them.

Z (rows, heads * width) is read by W (outputs, heads * width). Within a head Z_h and W_h can be turned, Z_h
A and W_h A^-T, and nothing changes. With L L^T = Z_h^T Z_h and L^T W_h^T = U S V^T, A = L^-T U makes
columns that are orthonormal over the rows, and of which keeping the first k is the best approximation of
Z_h W_h^T of rank k. Heads that share their values are turned alike, by the sum of their moments and with
all that reads them.

Source: Eckart & Young 1936, in the metric of the activations, as Lin et al., "MoDeGPT", ICLR 2025, section
3.3, has it for values and outputs.
"""

import torch
from torch import Tensor

from statprune.linalg.least_squares import damped_factor, ridge

DAMPING = 1e-4
"""Of a head's second moments, as a share of their mean diagonal."""

NOISE = 8 * torch.finfo(torch.float32).eps
"""Of the largest second moment: less than that says nothing where products were formed in float32."""


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


def standardised_ridge(
    G: Tensor,  # (m, m) second moments
    C: Tensor,  # (m, columns)
    damping: float,
) -> Tensor:
    """X with (G + damping * diag G) X = C: columns that are small lose as little as large ones.

    To each entry of the diagonal at least NOISE of the largest one is added: where products were formed in
    float32, columns that are all but zero have moments of any sign.

    Raises:
        NumericalError: no usable factor, whatever the rescue.
    """
    energy = G.diagonal()
    most = float(energy.max())
    if most <= 0:
        return torch.zeros_like(C)
    damped = G + torch.diag((damping * energy).clamp(min=NOISE * most))
    scale = damped.diagonal().sqrt()
    fitted = ridge(damped / torch.outer(scale, scale), C / scale[:, None]).X
    return fitted / scale[:, None]
