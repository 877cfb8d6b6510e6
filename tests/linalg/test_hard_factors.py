"""Hard numbers in the factorisations: every error curve and every interpolation against eighty digits.

A factor from rows is that of Z D + E with ||E|| <= c n m eps ||Z D|| (Higham, theorem 19.4), and the
distance from what is kept moves by (1 + ||T||) ||E||; one from a Gram matrix is that of D G D + F with
||F|| <= c n m eps ||Z D||^2, and squared distances move by (1 + ||T||)^2 ||F|| (Higham, section 10.3). T is
the exact one.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from exact import EPS, MP, Exact, exact, hard, left_over, matrices, norm, solved
from hypothesis import given, settings
from hypothesis import strategies as st
from methods import Method, blocked, blocks, cholesky, every_method, gram, qr, tall_qr
from torch import Tensor

from statprune.errors import NonFiniteError, NumericalError, NumericalWarning
from statprune.linalg.factor import Factor

many = settings(max_examples=60)
C = 16
FROM_ROWS = (qr, tall_qr)


def tall_enough(Z: Tensor, unit: int) -> Tensor:
    """Z with as many columns as make whole units."""
    return Z.repeat_interleave(unit, dim=1) if unit == 1 else torch.cat([Z, Z.flip(0)[:, :]], dim=1)


def weights_of(m: int, seed: int, kind: int) -> Tensor | None:
    """Norms of a consumer's columns: none given, ordinary, some zero, or of all sizes."""
    if kind == 0:
        return None
    scale = hard("plain", 1, m, seed)[0].abs()
    if kind == 2:
        scale[seed % m] = 0
    return scale * torch.logspace(-4, 4, m, dtype=torch.float64) if kind == 3 else scale


def growth(G: Exact, kept: list[int]) -> float:
    """1 + ||T||_F of the exact interpolation from the independent columns among `kept`."""
    independent: list[int] = []
    left = G
    largest = max(G[i, i] for i in range(len(G)))
    for j in kept:
        if left[j, j] > largest * MP.mpf(10) ** -50:
            independent.append(j)
            left = left_over(left, [j])
    if not independent:
        return 1.0
    T = solved(G[np.ix_(independent, independent)], G[independent])
    return 1.0 + float(MP.sqrt((T**2).sum()))


def allowed(method: Method, factor: Factor, Z: Tensor, T: float) -> tuple[float, float]:
    """By how much an error, and a squared error, may be off."""
    size = norm(Z * factor.scale)
    share = C * max(Z.shape) * Z.shape[1] * EPS
    return (share * T * size, 0.0) if method in FROM_ROWS else (0.0, share * (T * size) ** 2)


def near(found: float, wanted: float, off: tuple[float, float]) -> bool:
    lower, upper = max(0.0, wanted - off[0]), wanted + off[0]
    return max(0.0, lower**2 - off[1]) <= found**2 <= upper**2 + off[1]


@every_method
@given(Z=matrices, unit=st.integers(1, 2), seed=st.integers(0, 2**31), kind=st.integers(0, 3))
@many
def test_errors_and_interpolations(method: Method, Z: Tensor, unit: int, seed: int, kind: int) -> None:
    Z = tall_enough(Z, unit)
    m = Z.shape[1]
    factor = method(Z, weights_of(m, seed, kind), unit)
    errors = factor.errors()
    assert torch.isfinite(errors).all()
    D = exact(factor.scale)
    scaled = exact(Z) * D
    G = scaled.T @ scaled
    for k in range(factor.units + 1):
        kept = factor.columns[: k * unit].tolist()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NumericalWarning)
            part = factor.interpolation(k)
        off = allowed(method, factor, Z, growth(G, kept))
        wanted = float(MP.sqrt(abs(sum(left_over(G, kept)[i, i] for i in range(m)))))
        assert near(float(errors[k]), wanted, off)
        # As written: what T makes of the columns kept is no worse.
        rebuilt = (exact(Z) - exact(Z)[:, part.kept_columns.tolist()] @ exact(part.T)) * D
        direct = float(MP.sqrt((rebuilt**2).sum())) if rebuilt.size else 0.0
        assert torch.isfinite(part.T).all()
        assert near(max(direct, wanted), wanted, off)


@every_method
@given(Z=matrices, seed=st.integers(0, 2**31), kind=st.integers(0, 3))
@many
def test_every_pivot_is_the_largest_that_is_left(method: Method, Z: Tensor, seed: int, kind: int) -> None:
    factor = method(Z, weights_of(Z.shape[1], seed, kind), 1)
    scaled = exact(Z) * exact(factor.scale)
    G, pivots = scaled.T @ scaled, factor.pivot_norms()
    for k, pivot in enumerate(pivots.tolist()):
        kept = factor.order[:k].tolist()
        left = left_over(G, kept)
        off = allowed(method, factor, Z, growth(G, kept))
        largest = float(MP.sqrt(max(abs(left[i, i]) for i in range(len(left)))))
        assert near(max(largest, pivot), pivot, off)


@pytest.mark.parametrize("method", [qr, cholesky, blocked, blocks, gram, tall_qr])
@pytest.mark.parametrize("unit", [1, 2])
@given(seed=st.integers(0, 2**31), exponent=st.integers(-70, 70))
@settings(max_examples=30)
def test_the_size_of_numbers_changes_nothing(method: Method, unit: int, seed: int, exponent: int) -> None:
    """By powers of two: the same order, triangle and interpolation, to the last bit."""
    Z = hard("outliers", 12, 4, seed)
    once, again = method(Z, None, unit), method(Z * 2.0**exponent, None, unit)
    assert once.order.tolist() == again.order.tolist()
    assert torch.equal(once.R * 2.0**exponent, again.R)
    assert torch.equal(once.interpolation(1).T, again.interpolation(1).T)


@pytest.mark.parametrize("method", FROM_ROWS)
@pytest.mark.parametrize("unit", [1, 2])
@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_rows_whose_squares_overflow_or_vanish_are_factored(method: Method, unit: int, size: float) -> None:
    Z = hard("plain", 12, 6, 3)
    factor, wanted = method(Z * size, None, unit), method(Z, None, unit)
    assert factor.rank == 6
    assert factor.order.tolist() == wanted.order.tolist()
    torch.testing.assert_close(factor.interpolation(2).T, wanted.interpolation(2).T, rtol=1e-12, atol=1e-12)
    if size > 1:
        with pytest.raises(NumericalError, match=rf"errors of {6 // unit} units overflow torch.float64"):
            factor.errors()


@pytest.mark.parametrize("method", [qr, cholesky, blocks])
@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_scales_and_weights_that_are_not_finite_are_refused(method: Method, wrong: float) -> None:
    Z, bad = hard("plain", 6, 3, 0), torch.tensor([1.0, wrong, 1.0], dtype=torch.float64)
    with pytest.raises(NonFiniteError, match="scale: 1 of 3 entries"):
        method(Z, bad, 1)
    with pytest.raises(NonFiniteError, match="weight: 1 of 3 entries"):
        method(Z, None, 1).errors(bad[None])
    with pytest.raises(NonFiniteError, match="times scale: "):
        method(Z * 1e10, torch.full((3,), 1e300, dtype=torch.float64), 1)
