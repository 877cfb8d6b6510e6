"""Solves against scipy, and the rescue: bounded, announced, and failing by name."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given
from hypothesis import strategies as st
from matrices import checked, of_rank, random
from torch import Tensor

from statprune.errors import NonFiniteError, NumericalError, NumericalWarning
from statprune.linalg.factor import Factor
from statprune.linalg.least_squares import (
    condition_of_positive,
    condition_of_upper,
    inverse_one_norm,
    one_norm,
    positive_by_iteration,
    ridge,
    solve_upper,
    upper_by_iteration,
)

EPS = torch.finfo(torch.float64).eps
seeds = st.integers(0, 2**31)


def upper(k: int, seed: int) -> Tensor:
    """A triangle like those of pivoted QR: (k, k), diagonal between 1 and 2, condition moderate."""
    R = random(k, k, seed).triu(1)
    return R + torch.diag(1 + torch.rand(k, generator=torch.Generator().manual_seed(seed), dtype=R.dtype))


def damped_by_scipy(A: Tensor, B: Tensor, damping: float) -> Tensor:
    """The X of least ||A X - B||^2 + damping^2 ||X||^2, from the stacked system."""
    k = A.shape[1]
    stacked = torch.cat([A, damping * torch.eye(k, dtype=A.dtype)])
    right = torch.cat([B, B.new_zeros(k, B.shape[1])])
    return torch.from_numpy(scipy.linalg.lstsq(stacked.numpy(), right.numpy())[0])


@given(k=st.integers(1, 20), columns=st.integers(0, 5), seed=seeds)
@checked
def test_well_conditioned_triangles_are_solved_as_they_are(k: int, columns: int, seed: int) -> None:
    R, B = upper(k, seed), random(k, columns, seed + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solution = solve_upper(R, B)
    assert solution.damping == 0
    expected = scipy.linalg.solve_triangular(R.numpy(), B.numpy()) if columns else B.numpy()
    torch.testing.assert_close(solution.X, torch.from_numpy(expected))


@given(k=st.integers(1, 30), seed=seeds)
@checked
def test_condition_is_estimated_from_below_and_closely(k: int, seed: int) -> None:
    R = upper(k, seed)
    G = R.T @ R
    true = float(torch.linalg.cond(R, 1))
    assert true / 3 <= condition_of_upper(R) <= true * (1 + 1e-9)
    true = float(torch.linalg.cond(G, 1))
    assert true / 3 <= condition_of_positive(one_norm(G), torch.linalg.cholesky(G)) <= true * (1 + 1e-6)


@given(k=st.integers(1, 30), seed=seeds)
@checked
def test_estimate_without_lapack_is_as_good(k: int, seed: int) -> None:
    R = upper(k, seed)
    estimate = inverse_one_norm(
        lambda b: torch.linalg.solve_triangular(R, b, upper=True),
        lambda b: torch.linalg.solve_triangular(R.T, b, upper=False),
        R.new_full((k, 1), 1 / k),
    )
    identity = torch.eye(k, dtype=R.dtype)
    true = float(torch.linalg.matrix_norm(torch.linalg.solve_triangular(R, identity, upper=True), 1))
    assert true / 3 <= estimate <= true * (1 + 1e-9)


@given(k=st.integers(1, 30), seed=seeds)
@checked
def test_conditions_on_accelerators_are_those_of_lapack(k: int, seed: int) -> None:
    R = upper(k, seed)
    assert upper_by_iteration(R) == pytest.approx(condition_of_upper(R), rel=1e-9)
    norm, lower = one_norm(R.T @ R), torch.linalg.cholesky(R.T @ R)
    assert positive_by_iteration(norm, lower) == pytest.approx(condition_of_positive(norm, lower), rel=1e-6)


def test_a_condition_at_the_limit_is_within_it() -> None:
    R, B = upper(9, 0), random(9, 2, 1)
    assert solve_upper(R, B, max_condition=condition_of_upper(R)).damping == 0


def test_estimate_survives_a_matrix_that_fools_the_iteration() -> None:
    # The columns of the inverse cancel under the vector of ones that the iteration starts from.
    inverse = torch.eye(4, dtype=torch.float64) + 1e6 * torch.tensor(
        [[0.0] * 4, [0, 1, -1, 0], [0, -1, 1, 0], [0.0] * 4], dtype=torch.float64
    )
    start = torch.full((4, 1), 0.25, dtype=torch.float64)
    estimate = inverse_one_norm(lambda b: inverse @ b, lambda b: inverse.T @ b, start)
    true = float(torch.linalg.matrix_norm(inverse, 1))
    assert true / 10 <= estimate <= true
    safeguard = inverse.numpy() @ np.array([1, -(1 + 1 / 3), 1 + 2 / 3, -2])  # Higham 1988, algorithm 4.1
    assert estimate == pytest.approx(2 * np.abs(safeguard).sum() / 12)


def test_estimate_stops_where_it_would_no_longer_grow() -> None:
    """Drawn so that the second vector gives less than the first."""
    A = torch.randint(-3, 4, (2, 2), generator=torch.Generator().manual_seed(491)).double()
    inverse = torch.linalg.solve(A, torch.eye(2, dtype=torch.float64))
    start = torch.full((2, 1), 0.5, dtype=torch.float64)
    estimate = inverse_one_norm(lambda b: inverse @ b, lambda b: inverse.T @ b, start)
    assert 0 < estimate <= float(torch.linalg.matrix_norm(inverse, 1)) * (1 + 1e-12)


@given(k=st.integers(2, 20), seed=seeds, data=st.data())
@checked
def test_singular_triangles_are_damped_a_little_and_say_so(k: int, seed: int, data: st.DataObject) -> None:
    R, B = upper(k, seed), random(k, 3, seed + 1)
    for dead in data.draw(st.sets(st.integers(0, k - 1), min_size=1, max_size=k - 1)):
        R[dead, dead] = data.draw(st.sampled_from([0.0, 1e-18, -1e-17]))
    with pytest.warns(NumericalWarning, match=r"solve_upper: condition .* is above .*; damped by \d"):
        solution = solve_upper(R, B)
    first = k * EPS * float(R.norm())
    assert solution.damping == pytest.approx(first) or solution.damping == pytest.approx(10 * first)
    assert solution.condition <= 0.1 / EPS
    assert torch.isfinite(solution.X).all()


@given(k=st.integers(2, 10), seed=seeds)
@checked
def test_damped_solution_minimises_the_damped_error(k: int, seed: int) -> None:
    R, B = upper(k, seed), random(k, 3, seed + 1)
    R[-1, -1] = 1e-9
    limit = condition_of_upper(R) / 1e3
    with pytest.warns(NumericalWarning):
        solution = solve_upper(R, B, max_condition=limit, attempts=14)
    assert 0 < solution.condition <= limit
    expected = damped_by_scipy(R, B, solution.damping)
    torch.testing.assert_close(solution.X, expected, rtol=1e-5, atol=1e-9 * limit)


def test_solve_upper_fails_by_name_when_attempts_are_spent() -> None:
    R, B = upper(4, 0), random(4, 2, 0)
    R[3, 3] = 1e-14
    message = (
        r"solve_upper: condition .* of a 4 x 4 triangle is above 1.0e\+03, .* after 3 dampings. Keep fewer"
    )
    with pytest.raises(NumericalError, match=message):
        solve_upper(R, B, max_condition=1e3)
    with pytest.raises(NumericalError, match="after 0 dampings"):
        solve_upper(R, B, max_condition=1e3, attempts=0)
    with pytest.raises(NumericalError, match="condition inf of a 2 x 2"):
        solve_upper(torch.zeros(2, 2), torch.ones(2, 1))


def test_interpolation_announces_its_rescue() -> None:
    R = torch.tensor([[1.0, 1, 1], [0, 1e-17, 1]], dtype=torch.float64)
    factor = Factor(
        order=torch.arange(3),
        columns=torch.arange(3),
        R=R,
        pivots=torch.arange(2),
        scale=torch.ones(3, dtype=R.dtype),
        unit=1,
    )
    with pytest.warns(NumericalWarning, match="damped by"):
        kept = factor.interpolation(2)
    assert torch.isfinite(kept.T).all()
    assert torch.equal(kept.T[:, :2], torch.eye(2, dtype=R.dtype))


@pytest.mark.parametrize("solve", [solve_upper, ridge])
def test_systems_that_do_not_fit_or_are_not_finite_are_refused(solve: object) -> None:
    assert callable(solve)
    R = upper(3, 0)
    with pytest.raises(ValueError, match=r"cannot solve \(3, 3\) against \(2, 1\)"):
        solve(R, torch.ones(2, 1, dtype=R.dtype))
    with pytest.raises(ValueError, match=r"cannot solve \(2, 3\)"):
        solve(R[:2], torch.ones(2, 1, dtype=R.dtype))
    with pytest.raises(NonFiniteError, match="the matrix: 9 of 9"):
        solve(R * torch.nan, torch.ones(3, 1, dtype=R.dtype))
    with pytest.raises(NonFiniteError, match="the right-hand side: 3 of 3"):
        solve(R, torch.full((3, 1), torch.inf, dtype=R.dtype))
    empty = solve(torch.zeros(0, 0), torch.zeros(0, 4))
    assert (empty.X.shape, empty.condition, empty.damping) == ((0, 4), 1.0, 0.0)


@given(m=st.integers(1, 15), damping=st.sampled_from([0.0, 1e-6, 1e-3, 1.0]), seed=seeds)
@checked
def test_ridge_is_damped_least_squares_of_the_rows(m: int, damping: float, seed: int) -> None:
    Z, Y = random(40, m, seed), random(40, 3, seed + 1)
    G = Z.T @ Z
    solution = ridge(G, Z.T @ Y, damping)
    expected = damped_by_scipy(Z, Y, (damping * float(G.diagonal().mean())) ** 0.5)
    torch.testing.assert_close(solution.X, expected, rtol=1e-7, atol=1e-9)
    assert solution.damping == damping
    damped = G + damping * G.diagonal().mean() * torch.eye(m, dtype=G.dtype)
    true = float(torch.linalg.cond(damped, 1))
    assert true / 3 <= solution.condition <= true * (1 + 1e-6)


@given(m=st.integers(2, 15), seed=seeds, data=st.data())
@checked
def test_ridge_rescues_a_singular_gram_a_little_and_says_so(m: int, seed: int, data: st.DataObject) -> None:
    Z, Y = of_rank(40, m, data.draw(st.integers(1, m - 1)), seed), random(40, 3, seed + 1)
    with pytest.warns(NumericalWarning, match=r"ridge: damping raised from 0.0e\+00 to \d"):
        solution = ridge(Z.T @ Z, Z.T @ Y)
    assert 0 < solution.damping <= 100 * m * EPS * (1 + 1e-9)
    assert solution.condition <= 0.1 / EPS
    projection, *_ = scipy.linalg.lstsq(Z.numpy(), Y.numpy())
    best = Y - Z @ torch.from_numpy(projection)
    assert float((Y - Z @ solution.X).norm()) == pytest.approx(float(best.norm()), rel=1e-3)


def test_enough_damping_needs_no_rescue() -> None:
    Z = of_rank(40, 8, 3, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ridge(Z.T @ Z, Z.T @ Z, 1e-3).damping == 1e-3


def test_ridge_fails_by_name() -> None:
    G, C = torch.diag(torch.tensor([1.0, -0.5])), torch.ones(2, 1)
    with pytest.raises(
        NumericalError, match=r"ridge: a 2 x 2 Gram matrix .* after 3 rescues .* Raise damping"
    ):
        ridge(G, C)
    with pytest.raises(NumericalError, match=r"mean diagonal 0.0e\+00"):
        ridge(torch.zeros(2, 2), C)
    with pytest.raises(NumericalError, match=r"below 2.0e\+00 \(last 4.0e\+00\)"):
        ridge(torch.diag(torch.tensor([1.0, 4.0])), C, max_condition=2, attempts=1)
    with pytest.raises(ValueError, match="damping is -1"):
        ridge(torch.eye(2), C, -1)


def test_ridge_leaves_its_input_alone() -> None:
    Z = random(20, 4, 0)
    G = Z.T @ Z
    before = G.clone()
    ridge(G, G, 0.1)
    assert torch.equal(G, before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
def test_an_accelerator_agrees_with_the_host() -> None:
    R = upper(20, 1)
    G, B = R.T @ R, random(20, 3, 2)
    for solve, A in ((solve_upper, R), (ridge, G)):
        host, device = solve(A, B), solve(A.cuda(), B.cuda())
        torch.testing.assert_close(device.X.cpu(), host.X)
        assert device.condition == pytest.approx(host.condition, rel=2)


@pytest.mark.parametrize("columns", [1, 7, 500])
def test_nothing_but_the_memory_of_a_library_call_is_saved(columns: int) -> None:
    """What is solved in place is what torch's own Cholesky gives, bit for bit, and inputs stay."""
    Z = random(900, 300, 0)
    G, C = Z.T @ Z, random(300, columns, 1)
    before = (G.clone(), C.clone())
    damped = G.clone()
    damped.diagonal().add_(0.5 * float(G.diagonal().mean()))
    expected = torch.cholesky_solve(C, torch.linalg.cholesky(damped))
    assert torch.equal(ridge(G, C, 0.5).X, expected)
    assert torch.equal(ridge(G, C.mT.contiguous().mT, 0.5).X, expected)
    assert torch.equal(G, before[0])
    assert torch.equal(C, before[1])
