"""Hard numbers in solves and fits: within the bounds of backward stability of the answer to eighty digits.

Cholesky and triangular solves solve a system whose matrix is off by c m^2 eps times its own size (Higham,
theorems 8.5 and 10.4), so X is off by c m^2 eps cond ||X||. Where the rescue damps, the answer is that of the
damped problem, and the damping is told.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from exact import EPS, KINDS, MP, Exact, exact, hard, matrices, norm, solved
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from statprune.errors import NumericalError, NumericalWarning
from statprune.linalg.bilinear import Gated, Mixed, Reading, refit_producer
from statprune.linalg.elimination import eliminate
from statprune.linalg.held_out import LOCAL, NONE, compensation, fit_consumer
from statprune.linalg.least_squares import ridge, solve_upper
from statprune.linalg.moments import Moments, MomentSum, in_two

many = settings(max_examples=200)
C = 8


def size(A: Exact) -> float:
    return float(MP.sqrt((A**2).sum())) if A.size else 0.0


def damped(G: Tensor, damping: float) -> Exact:
    """G + damping * mean(diag G) I."""
    return exact(G) + np.diag([MP.mpf(damping) * exact(G).trace() / len(G)] * len(G))


def condition(A: Exact) -> float:
    """||A|| ||A^-1||, Frobenius."""
    identity = exact(torch.eye(len(A), dtype=torch.float64))
    return size(A) * size(solved(A, identity))


@given(Z=matrices, seed=st.integers(0, 2**31), damping=st.sampled_from([0.0, 1e-12, 1e-4, 1e-1]))
@many
def test_ridge(Z: Tensor, seed: int, damping: float) -> None:
    m = Z.shape[1]
    G, B = Z.T @ Z, Z.T @ hard("plain", len(Z), 2, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NumericalWarning)
        if not bool(G.any()):
            with pytest.raises(NumericalError, match="Raise damping or give more calibration rows"):
                ridge(G, B, damping)
            return
        found = ridge(G, B, damping)
    assert damping <= found.damping <= damping + 100 * m * EPS * (1 + 1e-9)
    A, X = damped(G, found.damping), exact(found.X)
    wanted = solved(A, exact(B))
    assert size(X - wanted) <= C * m * m * EPS * condition(A) * size(wanted)
    # What is solved is nearly what was asked, however ill-conditioned.
    assert size(A @ X - exact(B)) <= C * m * m * EPS * (size(A) * size(X) + size(exact(B)))


@given(
    k=st.integers(1, 6),
    seed=st.integers(0, 2**31),
    small=st.sampled_from([1.0, 1e-8, 1e-13, 1e-16, 1e-30, 0.0]),
    scale=st.sampled_from([1e-30, 1.0, 1e30]),
)
@many
def test_solve_upper(k: int, seed: int, small: float, scale: float) -> None:
    R = hard("plain", k, k, seed).triu(1) + torch.diag(1 + hard("plain", 1, k, seed + 1)[0].abs())
    R[seed % k, seed % k] *= small
    R, B = R * scale, hard("plain", k, 3, seed + 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NumericalWarning)
        if k == 1 and small == 0:
            with pytest.raises(NumericalError, match="condition inf of a 1 x 1"):
                solve_upper(R, B)
            return
        found = solve_upper(R, B)
    r, x, b = exact(R), exact(found.X), exact(B)
    assert torch.isfinite(found.X).all()
    assert found.condition <= 0.1 / EPS
    if found.damping == 0:
        assert (np.abs(r @ x - b) <= (k + 2) * MP.mpf(EPS) * (np.abs(r) @ np.abs(x))).all()
        return
    # (R^T R + damping^2 I) X = R^T B, solved through [R; damping I].
    stacked = MP.sqrt((r**2).sum() + k * MP.mpf(found.damping) ** 2)
    left = r.T @ (r @ x - b) + MP.mpf(found.damping) ** 2 * x
    assert size(left) <= C * k * k * EPS * float(stacked * (stacked * MP.mpf(size(x)) + MP.mpf(size(b))))


def raised(H: Exact, B: Exact, kept: list[int]) -> float:
    """By how much keeping only these columns raises the minimum."""
    gone = [j for j in range(len(H)) if j not in kept]
    if not gone:
        return 0.0
    S = H[np.ix_(gone, gone)]
    if kept:
        S = S - H[np.ix_(gone, kept)] @ solved(H[np.ix_(kept, kept)], H[np.ix_(kept, gone)])
    return float((B[gone] * (S @ B[gone])).sum())


@given(
    Z=matrices,
    unit=st.integers(1, 2),
    seed=st.integers(0, 2**31),
    damping=st.sampled_from([1e-6, 1e-4, 1e-1]),
    at_once=st.sampled_from([1 / 16, 0.5, 1.0]),
)
@many
def test_elimination(Z: Tensor, unit: int, seed: int, damping: float, at_once: float) -> None:
    Z = Z.repeat(1, unit)
    G, m = Z.T @ Z, Z.shape[1]
    B = hard("outliers" if seed % 2 else "dead", m, 2, seed)
    assume(len(B) == m)
    if not bool(G.any()):
        with pytest.raises(NumericalError, match="has no Cholesky factor"):
            eliminate(G, B, unit=unit, damping=damping)
        return
    found = eliminate(G, B, unit=unit, damping=damping, at_once=at_once)
    assert sorted(found.order.tolist()) == list(range(m // unit))
    assert (found.errors.diff() <= 0).all()
    H, b = damped(G, damping), exact(B)
    all_gone = float((b * (H @ b)).sum())
    bound = C * m * m * EPS * condition(H) * all_gone
    for k in range(m // unit + 1):
        kept = sorted(u * unit + i for u in found.order[:k].tolist() for i in range(unit))
        assert abs(float(found.errors[k]) - raised(H, b, kept)) <= bound


@given(Z=matrices, seed=st.integers(0, 2**31), unit=st.sampled_from([1, 2]))
@settings(max_examples=100)
def test_elimination_without_damping_is_finite_or_refused(Z: Tensor, seed: int, unit: int) -> None:
    """Condition numbers of 1e16 and more: no digit is promised, but nothing breaks without a name."""
    Z = Z.repeat(1, unit)
    m = Z.shape[1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NumericalWarning)
        try:
            found = eliminate(Z.T @ Z, hard("plain", m, 2, seed), unit=unit, damping=0.0, at_once=0.5)
        except NumericalError as error:
            assert "calibration rows" in str(error)  # noqa: PT017 - either outcome is right
            return
    assert torch.isfinite(found.errors).all()
    assert (found.errors.diff() <= 0).all()
    assert sorted(found.order.tolist()) == list(range(m // unit))


def moments_of(Z: Tensor, Y: Tensor, held: Tensor, *, constant: bool) -> tuple[Moments, Moments, Moments]:
    pair = [MomentSum(Z.shape[1], Y.shape[1], constant=constant, products=torch.float64) for _ in range(2)]
    pair[0].update(Z[~held], Y[~held])
    pair[1].update(Z[held], Y[held])
    halves = in_two(*pair)
    return halves.fit, halves.held, halves.whole()


def pair_of(Z: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Targets (rows, 2) of any size, and every fourth row."""
    Y = hard(KINDS[seed % len(KINDS)], 12, 2, seed)
    return Y.repeat(12, 1)[: len(Z)].contiguous(), torch.arange(len(Z)) % 4 == 3


@given(Z=matrices, seed=st.integers(0, 2**31), constant=st.booleans())
@example(Z=hard("constant", 11, 3, 300), seed=0, constant=True)
@many
def test_compensation_never_leaves_more_on_rows_held_out(Z: Tensor, seed: int, constant: bool) -> None:
    Y, held = pair_of(Z, seed)
    fit, out, _ = moments_of(Z, Y, held, constant=constant)
    found = compensation(fit, out)
    assert torch.isfinite(found.B).all()
    assert 0 <= found.held_out <= 1
    if found.damping == NONE:
        assert not bool(found.B.any())
        return
    G, c = exact(out.G), exact(out.C)
    b = exact(found.B)
    left = MP.mpf(out.energy) - 2 * (b * c).sum() + (b * (G @ b)).sum()
    terms = MP.mpf(out.energy) + 2 * np.abs(b * c).sum() + (np.abs(b) * (np.abs(G) @ np.abs(b))).sum()
    assert abs(found.held_out * MP.mpf(out.energy) - max(left, 0)) <= C * Z.shape[1] * MP.mpf(EPS) * terms


@pytest.mark.parametrize("products", [torch.float32, torch.float64])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@given(seed=st.integers(0, 2**31), n=st.integers(2, 40), size=st.sampled_from([1e-3, 1.0, 1e4]))
@settings(max_examples=50)
def test_columns_that_never_move_are_zero_about_their_mean(
    products: torch.dtype, dtype: torch.dtype, seed: int, n: int, size: float
) -> None:
    """To the last bit: rounding of either sign has no Cholesky factor, and no damping rescues it."""
    Z = (hard("one row", 1, 3, seed) * size).repeat(n, 1).to(dtype)
    held = torch.arange(n) % 4 == 3
    pair = [MomentSum(3, 2, constant=True, products=products) for _ in range(2)]
    for sums, rows in zip(pair, (~held, held), strict=True):
        for part in Z[rows].split(5):
            sums.update(part, torch.randn(len(part), 2, generator=torch.Generator().manual_seed(seed)))
    halves = in_two(*pair)
    assert not bool(halves.fit.G.any() or halves.held.G.any())
    assert compensation(halves.fit, halves.held).damping == NONE
    assert not bool(halves.whole().G.any())


@given(
    Z=matrices,
    seed=st.integers(0, 2**31),
    constant=st.booleans(),
    damping=st.sampled_from([NONE, 1e-1, 1e-2, 1e-3]),
    data=st.data(),
)
@many
def test_fit_of_a_consumer(Z: Tensor, seed: int, constant: bool, damping: float, data: st.DataObject) -> None:
    m = Z.shape[1]
    kept = sorted(data.draw(st.sets(st.integers(0, m - 1), min_size=1)))
    Y, held = pair_of(Z, seed)
    W = hard("plain", 2, m, seed + 1)
    *_, lost = moments_of(Z, Y - Z @ W.T, held, constant=constant)
    whole = Moments(
        lost.G, lost.C + lost.G @ W.T, lost.energy, lost.mean_input, lost.mean_target, len(Z), len(Z)
    )
    found = fit_consumer(whole, W, torch.tensor(kept), damping)
    assert torch.isfinite(found.B).all()
    assert torch.isfinite(found.shift).all()
    G, w, c = exact(whole.G), exact(W).T, exact(whole.C)
    part = whole.G[kept][:, kept]
    if not bool((part.diagonal() > 0).any()):
        assert torch.equal(found.B, W.T[kept])  # there is nothing to fit with
        return
    local = damped(part, LOCAL)
    first = w[kept] if len(kept) == m else solved(local, (G @ w)[kept])
    off = 0.0 if len(kept) == m else condition(local) * size(first)
    second = 0 * first
    if damping != NONE:
        lost_there = (c - G @ w)[kept]
        second = solved(damped(part, damping), lost_there)
        # C - G W is a difference of two that may be nearly equal.
        H = damped(part, damping)
        inverse = size(solved(H, exact(torch.eye(len(kept), dtype=torch.float64))))
        off += condition(H) * size(second) + inverse * (size(np.abs(c[kept])) + size(np.abs(G) @ np.abs(w)))
    assert size(exact(found.B) - first - second) <= C * m * m * EPS * (off + size(first))


def rows_of_hard(kind: str, n: int, m: int, seed: int) -> Tensor:
    """(n, m), whatever the kind."""
    A = hard(kind, n, m, seed)
    return A.repeat(n, 1)[:n]


def gated(kind: str, seed: int, dtype: torch.dtype) -> Reading:
    return Gated(rows_of_hard(kind, 12, 3, seed).to(dtype), hard("plain", 12, 4, seed + 1).to(dtype))


def mixed(kind: str, seed: int, dtype: torch.dtype) -> Reading:
    return Mixed(torch.stack([rows_of_hard(kind, 12, 3, seed + i) for i in range(4)]).to(dtype), group=2)


@pytest.mark.parametrize("make", [gated, mixed])
@pytest.mark.parametrize("constant", [False, True])
@given(
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 2**31),
    dtype=st.sampled_from([torch.float64, torch.float32]),
    consumer=st.sampled_from(["plain", "dead", "duplicated", "outliers", "zero", "tiny"]),
)
@settings(max_examples=100)
def test_a_carrier_never_leaves_more(
    make: object, constant: bool, kind: str, seed: int, dtype: torch.dtype, consumer: str
) -> None:
    assert callable(make)
    reading = make(kind, seed, dtype)
    B = rows_of_hard(consumer, 4, 2, seed + 2).to(dtype)
    missing = rows_of_hard("outliers", 12, 2, seed + 3).to(dtype)
    try:
        D = refit_producer(reading, B, missing, constant=constant)
    except NumericalError as error:
        raise AssertionError(f"not refused for good reason: {error}") from error
    assert torch.isfinite(D).all()
    left = [missing.double(), missing.double() - (reading.products(D, slice(None)).double() @ B.double())]
    if constant:
        left = [each - each.mean(dim=0) for each in left]
    eps = torch.finfo(dtype).eps
    assert norm(left[1]) <= norm(left[0]) * (1 + 100 * eps) + 12 * eps * norm(missing.double())
