"""Answers to eighty digits, and hard matrices to ask for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from hypothesis import strategies as st
from mpmath.ctx_mp import MPContext
from numpy.typing import NDArray
from torch import Tensor

MP = MPContext()
MP.dps = 80
EPS = torch.finfo(torch.float64).eps
EPS32 = torch.finfo(torch.float32).eps
TINY = torch.finfo(torch.float64).tiny
TINY32 = torch.finfo(torch.float32).tiny

Exact = NDArray[np.object_]


def _ill_conditioned(Z: Tensor, some: Tensor) -> Tensor:
    """1e8, so that the Gram matrix has 1e16."""
    m = Z.shape[1]
    generator = torch.Generator().manual_seed(int(some.sum()))
    left, right = (torch.linalg.qr(A).Q for A in (Z, torch.randn(m, m, generator=generator).double()))
    k = left.shape[1]
    return (left * torch.logspace(0, -8, k, dtype=torch.float64)) @ right[:k]


_MADE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "plain": lambda Z, _: Z,
    "dead": lambda Z, some: torch.where(some, 0, Z),
    "duplicated": lambda Z, some: torch.where(some, Z[:, :1], Z),
    "outliers": lambda Z, some: torch.where(some, 1e4 * Z, Z),
    "constant": lambda Z, some: torch.where(some, Z[:1], Z),
    "one row": lambda Z, _: Z[:1],
    "few rows": lambda Z, _: Z[: max(1, Z.shape[1] // 2)],
    "ill-conditioned": _ill_conditioned,
    "tiny": lambda Z, _: Z * 1e-30,
    "huge": lambda Z, _: Z * 1e30,
    "half": lambda Z, _: (Z * 1e4).half().double(),
    "zero": lambda Z, _: torch.zeros_like(Z),
}
KINDS = tuple(_MADE)


def hard(kind: str, n: int, m: int, seed: int) -> Tensor:
    """(n, m) float64 of one of the KINDS; "one row" and "few rows" have fewer rows."""
    generator = torch.Generator().manual_seed(seed)
    Z = torch.randn(n, m, generator=generator, dtype=torch.float64)
    return _MADE[kind](Z, torch.rand(m, generator=generator) < 0.5)


matrices = st.builds(
    hard, st.sampled_from(KINDS), st.integers(1, 12), st.integers(1, 6), st.integers(0, 2**31)
)
"""Hard (rows, columns), up to 12 and 6."""


def exact(A: Tensor) -> Exact:
    """`A` as numbers of eighty digits, in an array of numpy."""
    values = [MP.mpf(value) for value in A.double().flatten().tolist()]
    return np.array([*values, None], dtype=object)[:-1].reshape(tuple(A.shape))


def rounded(A: Exact) -> Tensor:
    """The nearest float64."""
    return torch.tensor([float(value) for value in A.flatten()], dtype=torch.float64).reshape(A.shape)


def solved(A: Exact, B: Exact) -> Exact:
    """X with A X = B, for A not singular: Gaussian elimination with pivoting."""
    A, B = A.copy(), B.copy()
    for k in range(len(A)):
        p = k + int(np.argmax(np.abs(A[k:, k])))
        A[[k, p]], B[[k, p]] = A[[p, k]], B[[p, k]]
        for i in range(k + 1, len(A)):
            share = A[i, k] / A[k, k]
            A[i], B[i] = A[i] - share * A[k], B[i] - share * B[k]
    for k in reversed(range(len(A))):
        B[k] = (B[k] - A[k, k + 1 :] @ B[k + 1 :]) / A[k, k]
    return B


def left_over(G: Exact, columns: Sequence[int]) -> Exact:
    """The Gram matrix of what no combination of `columns` explains, from the Gram matrix G of all."""
    G, largest = G.copy(), max((G[i, i] for i in range(len(G))), default=0)
    for j in columns:
        if G[j, j] > largest * MP.mpf(10) ** -50:  # a float64 matrix lacks rank exactly, or by far less
            G = G - np.outer(G[:, j], G[j]) / G[j, j]
        G[j], G[:, j] = MP.mpf(0), MP.mpf(0)
    return G


def norm(A: Tensor) -> float:
    """The Frobenius norm, where squares may overflow or vanish."""
    largest = float(A.abs().max()) if A.numel() else 0.0
    return largest * float((A / largest).norm()) if largest > 0 else 0.0
