"""Hard numbers in what sums rows up: within a bound of the answer to eighty digits, or refused by name.

The bound of a sum of n products is Higham's (Accuracy and Stability of Numerical Algorithms, 2nd ed., 3.1):
(n + 2) eps sum |a b|, eps that of the dtype in which products are formed, and n of its smallest normal
numbers where they vanish. docs/trust.md has all bounds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from exact import EPS, EPS32, KINDS, MP, TINY32, Exact, exact, hard, matrices, norm, rounded
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from statprune.errors import NonFiniteError
from statprune.linalg.gram import CrossGram, Gram
from statprune.linalg.moments import MomentSum, in_two
from statprune.linalg.sketch import CountSketch, GaussianSketch
from statprune.linalg.tall_qr import TallQR

many = settings(max_examples=200)
DTYPES = st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16])
PRODUCTS = st.sampled_from([torch.float64, torch.float32])


def within(found: Tensor, wanted: Exact, bound: Exact | Tensor) -> None:
    """Entry by entry."""
    assert torch.isfinite(found).all()
    bound = exact(bound) if isinstance(bound, Tensor) else bound
    assert (np.abs(exact(found) - wanted) <= bound).all()


def held_in(Z: Tensor, dtype: torch.dtype) -> Tensor:
    """Z in `dtype`, clipped to what it holds."""
    return Z.clamp(-torch.finfo(dtype).max, torch.finfo(dtype).max).to(dtype)


@given(Z=matrices, dtype=DTYPES, products=PRODUCTS, batch=st.integers(1, 12))
@many
def test_gram(Z: Tensor, dtype: torch.dtype, products: torch.dtype, batch: int) -> None:
    rows, n = held_in(Z, dtype), len(Z)
    sums = Gram(Z.shape[1], product_dtype=products)
    for part in rows.split(batch):
        sums.update(part)
    z = exact(rows)
    eps = max(torch.finfo(products).eps, EPS)
    bound = (n + 4) * MP.mpf(eps) * (np.abs(z).T @ np.abs(z)) + n * MP.mpf(torch.finfo(products).tiny)
    within(sums.matrix, z.T @ z, bound)
    assert torch.equal(sums.matrix, sums.matrix.T)


@given(A=matrices, m=st.integers(1, 5), seed=st.integers(0, 2**31), dtype=DTYPES, products=PRODUCTS)
@many
def test_cross_gram(A: Tensor, m: int, seed: int, dtype: torch.dtype, products: torch.dtype) -> None:
    n, a = len(A), held_in(A, dtype)
    b = held_in(hard(KINDS[seed % len(KINDS)], n, m, seed), dtype)
    b = b.expand(n, m) if len(b) == 1 else torch.cat([b, b.new_zeros(n - len(b), m)])
    sums = CrossGram(A.shape[1], m, product_dtype=products)
    sums.update(a, b)
    x, y = exact(a), exact(b)
    eps, least = max(torch.finfo(products).eps, EPS), torch.finfo(products).tiny
    # What float32 makes vanish of one is multiplied by the other.
    lost = n * MP.mpf(least) * (1 + np.abs(x).max() + np.abs(y).max())
    within(sums.matrix, x.T @ y, (n + 4) * MP.mpf(eps) * (np.abs(x).T @ np.abs(y)) + lost)


@given(Z=matrices, batch=st.integers(1, 12), dtype=DTYPES)
@many
def test_tall_qr(Z: Tensor, batch: int, dtype: torch.dtype) -> None:
    """Column by column backward stable (Higham, theorem 19.4)."""
    rows, (n, m) = held_in(Z, dtype), Z.shape
    sums = TallQR(m)
    for part in rows.split(batch):
        sums.update(part)
    R, z = sums.R, exact(rows)
    sizes = exact(torch.tensor([norm(column) for column in rows.double().T], dtype=torch.float64))
    r = exact(R)
    assert torch.isfinite(R).all()
    assert (np.abs(r.T @ r - z.T @ z) <= 8 * n * m * MP.mpf(EPS) * np.outer(sizes, sizes)).all()


@pytest.mark.parametrize("make", [GaussianSketch, CountSketch])
@given(Z=matrices, rows=st.integers(1, 9), seed=st.integers(0, 2**31), dtype=DTYPES)
@many
def test_sketches(make: Any, Z: Tensor, rows: int, seed: int, dtype: torch.dtype) -> None:
    z, n = held_in(Z, dtype), len(Z)
    S = make(n, rows, generator=torch.Generator().manual_seed(seed))
    S.update(torch.eye(n, dtype=torch.float64))
    sums = make(Z.shape[1], rows, generator=torch.Generator().manual_seed(seed))
    sums.update(z)
    s = exact(S.matrix)
    within(sums.matrix, s @ exact(z), (n + 4) * MP.mpf(EPS) * (np.abs(s) @ np.abs(exact(z))))


def shift_of(rows: Tensor, *, constant: bool) -> Exact:
    """What rows are shifted by before products are formed."""
    mean = rows.mean(dim=0, dtype=torch.float64).float().double()
    return exact(mean if constant else torch.zeros_like(mean))


@given(
    Z=matrices,
    seed=st.integers(0, 2**31),
    first=st.integers(1, 12),
    constant=st.booleans(),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
    products=PRODUCTS,
)
@many
def test_moments(
    Z: Tensor, seed: int, first: int, constant: bool, dtype: torch.dtype, products: torch.dtype
) -> None:
    """Errors are of the size of rows about the first batch's mean, whatever that is."""
    n, m = Z.shape
    z = held_in(Z + seed % 3 * 1e3, dtype)
    y = held_in(hard("outliers", n, 2, seed), dtype)
    sums = MomentSum(m, 2, constant=constant, products=products)
    for part in (slice(0, first), slice(first, None)):
        sums.update(z[part], y[part])
    found = sums.moments()
    a, b = exact(z), exact(y)
    means = [x.mean(axis=0) if constant else 0 * x[0] for x in (a, b)]
    wanted = [x - mean for x, mean in zip((a, b), means, strict=True)]
    sizes = [
        np.sqrt(((x - shift_of(rows[:first], constant=constant)) ** 2).sum(axis=0).astype(float)).astype(
            object
        )
        for x, rows in ((a, z), (b, y))
    ]
    eps = MP.mpf(max(torch.finfo(products).eps, torch.finfo(torch.promote_types(dtype, products)).eps))
    least = n * MP.mpf(TINY32) * (1 + max(sizes[0].max(), sizes[1].max()))
    within(found.G, wanted[0].T @ wanted[0], 8 * (n + 4) * eps * np.outer(sizes[0], sizes[0]) + least)
    within(found.C, wanted[0].T @ wanted[1], 8 * (n + 4) * eps * np.outer(sizes[0], sizes[1]) + least)
    assert abs(found.energy - (wanted[1] ** 2).sum()) <= 8 * (n + 4) * eps * (sizes[1] ** 2).sum() + least
    assert found.rows == n


@given(Z=matrices, seed=st.integers(0, 2**31), first=st.integers(0, 12), constant=st.booleans())
@many
def test_rows_in_two_are_all_rows(Z: Tensor, seed: int, first: int, constant: bool) -> None:
    Y = hard("plain", len(Z), 2, seed)
    pair = [MomentSum(Z.shape[1], 2, constant=constant, products=torch.float64) for _ in range(2)]
    pair[0].update(Z[:first], Y[:first])
    pair[1].update(Z[first:], Y[first:])
    halves = in_two(*pair)
    z, y = exact(Z), exact(Y)
    if constant:
        z, y = z - z.mean(axis=0), y - y.mean(axis=0)
    largest = exact(Z.abs().amax(dim=0))
    bound = 32 * (len(Z) + 4) * MP.mpf(EPS) * len(Z)
    for part, rows in ((halves.fit, slice(0, first)), (halves.held, slice(first, None))):
        within(part.G, z[rows].T @ z[rows], bound * np.outer(largest, largest))
        within(part.C, z[rows].T @ y[rows], bound * np.outer(largest, np.abs(exact(Y)).max(axis=0)))
    whole = halves.whole()
    within(whole.G, z.T @ z, bound * np.outer(largest, largest))
    assert float(abs(whole.energy - (y**2).sum())) <= float(bound * (exact(Y) ** 2).sum())


MAKERS: dict[str, Callable[[int], Any]] = {
    "gram": Gram,
    "float32 products": lambda width: Gram(width, product_dtype=torch.float32),
    "tall qr": TallQR,
    "gaussian": lambda width: GaussianSketch(width, 4, generator=torch.Generator().manual_seed(0)),
    "countsketch": lambda width: CountSketch(width, 4, generator=torch.Generator().manual_seed(0)),
}


@pytest.mark.parametrize("maker", list(MAKERS))
@given(
    Z=matrices,
    where=st.integers(0, 71),
    wrong=st.sampled_from([float("nan"), float("inf"), -float("inf")]),
    dtype=DTYPES,
)
@settings(max_examples=40)
def test_what_is_not_finite_is_refused_and_nothing_is_taken_in(
    maker: str, Z: Tensor, where: int, wrong: float, dtype: torch.dtype
) -> None:
    sums = MAKERS[maker](Z.shape[1])
    rows = held_in(Z, dtype)
    sums.update(rows)
    before = sums.R if maker == "tall qr" else sums.matrix
    bad = rows.clone()
    bad.view(-1)[where % bad.numel()] = wrong
    with pytest.raises(NonFiniteError, match=f"Z: 1 of {bad.numel()} entries are NaN or infinite"):
        sums.update(bad)
    assert sums.rows == len(Z)
    assert torch.equal(before, sums.R if maker == "tall qr" else sums.matrix)


def test_sums_that_overflow_are_refused_where_they_are_used() -> None:
    rows = torch.full((3, 2), 1e200, dtype=torch.float64)
    sums = Gram(2)
    sums.update(rows)
    with pytest.raises(NonFiniteError, match=r"G: 4 of 4 entries are NaN or infinite"):
        sums.factor()
    pair = MomentSum(2, 1, constant=False, products=torch.float64)
    pair.update(rows, rows[:, :1])
    with pytest.raises(NonFiniteError, match="second moments of inputs: 4 of 4"):
        pair.moments()


def test_what_overflows_float32_is_summed_in_float64() -> None:
    rows = torch.tensor([[3e19, 2.0], [-2e19, 1.0]], dtype=torch.float32)
    coarse, fine = Gram(2, product_dtype=torch.float32), Gram(2)
    for sums in (coarse, fine):
        sums.update(rows)
    torch.testing.assert_close(coarse.matrix, fine.matrix, rtol=EPS32, atol=0)
    assert rounded(exact(rows)).equal(rows.double())
