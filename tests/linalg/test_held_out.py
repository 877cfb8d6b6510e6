"""Moments and the consumer's fit against numpy on whole matrices."""

import numpy as np
import pytest
import torch
from matrices import three
from torch import Tensor

from statprune.errors import NonFiniteError, NumericalError
from statprune.linalg import held_out as rule
from statprune.linalg.checks import require_finite
from statprune.linalg.held_out import (
    DAMPINGS,
    LOCAL,
    NEARLY,
    NOISE,
    NONE,
    Compensation,
    compensation,
    damping_of_choice,
    fit_consumer,
)
from statprune.linalg.moments import Moments, MomentSum

ROWS, M, OUT = 400, 10, 4


def data(seed: int, lost: float = 0.3) -> tuple[Tensor, Tensor, Tensor]:
    """Z, W and Y = Z W^T + lost * (a linear function of Z, and noise)."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    Z = normal(ROWS, M) @ normal(M, M) + 2
    W = normal(OUT, M)
    return Z, W, Z @ W.T + lost * (Z @ normal(M, OUT) + normal(ROWS, OUT))


def sums(Z: Tensor, Y: Tensor, *, constant: bool, split: int = 300) -> tuple[Moments, Moments, Moments]:
    fit, held = (MomentSum(Z.shape[1], Y.shape[1], constant=constant) for _ in range(2))
    for start in range(0, split, 70):
        stop = min(start + 70, split)
        fit.update(Z[start:stop], Y[start:stop])
    held.update(Z[split:], Y[split:])
    return three(fit, held)


@pytest.mark.parametrize("constant", [False, True])
def test_moments_are_those_of_the_whole_matrices(constant: bool) -> None:
    Z, _, Y = data(0)
    parts = sums(Z, Y, constant=constant)
    z, y = (each - constant * each.mean(dim=0) for each in (Z, Y))
    for part, rows in zip(parts, (slice(0, 300), slice(300, None), slice(None)), strict=True):
        scale = float((z.T @ z).abs().max())
        torch.testing.assert_close(part.G, z[rows].T @ z[rows], rtol=0, atol=2e-6 * scale)
        torch.testing.assert_close(part.C, z[rows].T @ y[rows], rtol=0, atol=2e-6 * scale)
        B = torch.randn(M, OUT, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        exact = float((y[rows] - z[rows] @ B).square().sum())
        assert part.error(B) == pytest.approx(exact, rel=1e-4)
        left = part.against(B)
        torch.testing.assert_close(left.C, z[rows].T @ (y[rows] - z[rows] @ B), rtol=0, atol=1e-4 * scale)
        assert left.energy == pytest.approx(exact, rel=1e-4)
        some = part.of(torch.tensor([1, 4]))
        torch.testing.assert_close(some.G, part.G[[1, 4]][:, [1, 4]])


def ridge(G: np.ndarray, C: np.ndarray, damping: float) -> np.ndarray:
    return np.linalg.solve(G + damping * G.diagonal().mean() * np.eye(len(G)), C)


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("damping", [1e-2, NONE])
def test_the_fit_has_two_parts(constant: bool, damping: float) -> None:
    Z, W, Y = data(1)
    _, _, whole = sums(Z, Y, constant=constant)
    kept = torch.tensor([0, 2, 3, 7])
    found = fit_consumer(whole, W, kept, damping)
    z, y = (np.asarray(each - constant * each.mean(dim=0)) for each in (Z, Y))
    part, target = z[:, kept], z @ W.numpy().T
    B = ridge(part.T @ part, part.T @ target, LOCAL)
    if damping != NONE:
        B = B + ridge(part.T @ part, part.T @ (y - target), damping)
    np.testing.assert_allclose(found.B.numpy(), B, rtol=1e-3, atol=1e-4)
    error = np.square(y - part @ B).sum() / np.square(y).sum()
    assert found.error == pytest.approx(error, rel=1e-3)
    shift = Y.mean(dim=0) - Z[:, kept].mean(dim=0) @ found.B if constant else torch.zeros(OUT)
    torch.testing.assert_close(found.shift, shift.double(), rtol=1e-4, atol=1e-4)


def test_nothing_dropped_and_nothing_lost_keeps_the_weight_bit_for_bit() -> None:
    Z, W, _ = data(2)
    _, _, whole = sums(Z, Z @ W.T, constant=False)
    assert torch.equal(fit_consumer(whole, W, torch.arange(M), NONE).B, W.T)


def lost_moments(D: Tensor, Z: Tensor) -> tuple[Moments, Moments]:
    fit, held, _ = sums(Z, D, constant=False)
    return fit, held


def test_what_is_linear_is_made_good_and_noise_is_not() -> None:
    Z, _, _ = data(3)
    generator = torch.Generator().manual_seed(4)
    linear = Z @ torch.randn(M, OUT, generator=generator, dtype=torch.float64)
    noise = torch.randn(ROWS, OUT, generator=generator, dtype=torch.float64)
    found = compensation(*lost_moments(linear, Z))
    assert found.damping in (1e-2, 1e-3)
    assert found.held_out < 1e-2
    nothing = compensation(
        *lost_moments(noise - noise.mean(dim=0), Z[torch.randperm(ROWS, generator=generator)])
    )
    assert nothing.held_out > 0.9
    none = compensation(*lost_moments(torch.zeros(ROWS, OUT), Z))
    assert (none.damping, float(none.B.abs().max())) == (NONE, 0)


def test_the_rows_held_out_decide() -> None:
    """The same rows to fit; held out once those that follow them, once those that contradict them."""
    Z, _, _ = data(5)
    D = Z @ torch.randn(M, OUT, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    contrary = D.clone()
    contrary[300:] *= -1
    assert compensation(*lost_moments(D, Z)).damping < NONE
    assert compensation(*lost_moments(contrary, Z)).damping == NONE


def test_once_the_rows_held_out_are_served_worse_no_smaller_damping_is_tried(monkeypatch) -> None:
    """Of pure noise each smaller one follows more; of what is linear each serves better."""
    tried, seen = rule._tried, []
    monkeypatch.setattr(rule, "_tried", lambda *given: seen.append(given[2]) or tried(*given))
    Z, W, _ = data(1)
    noise = torch.randn(ROWS, OUT, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    for lost, count in ((noise, 2), (Z @ W.T, len(DAMPINGS))):
        fit, held, _ = sums(Z, lost, constant=False)
        seen.clear()
        compensation(fit, held)
        assert seen == list(DAMPINGS[:count])


def test_of_dampings_that_are_nearly_equal_the_largest_is_taken() -> None:
    generator = torch.Generator().manual_seed(7)
    Q, _ = torch.linalg.qr(torch.randn(ROWS, M, generator=generator, dtype=torch.float64))
    D = Q @ torch.randn(M, OUT, generator=generator, dtype=torch.float64)
    found = compensation(*lost_moments(D, Q), dampings=(1e-3, 1e-4, 1e-5))
    assert found.damping == 1e-3


def test_the_quick_check_of_finiteness_is_not_fooled() -> None:
    require_finite(torch.full((4,), 3e38), "large")  # whose float32 sum overflows
    with pytest.raises(NonFiniteError, match="both: 2 of 3"):
        require_finite(torch.tensor([torch.inf, -torch.inf, 1.0]), "both")


def by_the_rule(Z: Tensor, D: Tensor, split: int, dampings: tuple[float, ...]) -> tuple[float, float]:
    """Damping and error held out, from the rows themselves: the largest whose error is nearly the least."""
    z, d, held_z, held_d = (each.numpy() for each in (Z[:split], D[:split], Z[split:], D[split:]))
    errors = {NONE: 1.0}
    for damping in dampings:
        left = held_d - held_z @ ridge(z.T @ z, z.T @ d, damping)
        errors[damping] = np.square(left).sum() / np.square(held_d).sum()
    least = min(errors.values())
    chosen = max(damping for damping, error in errors.items() if error <= least + NEARLY * (1 - least))
    return chosen, errors[chosen]


def test_the_rule_from_the_rows_themselves() -> None:
    """From a clean linear loss to noise alone; on the way every answer is given."""
    answers = set()
    for seed in range(30):
        generator = torch.Generator().manual_seed(seed)
        Z, _, _ = data(seed)
        noise = torch.randn(ROWS, OUT, generator=generator, dtype=torch.float64)
        linear = Z @ torch.randn(M, OUT, generator=generator, dtype=torch.float64)
        D = linear * 10.0 ** -(seed % 6) + noise if seed % 5 else linear
        if seed % 5 == 1:  # along the direction that Z has least of, where a damping takes most away
            D = Z @ torch.linalg.eigh(Z.T @ Z).eigenvectors[:, :1].expand(M, OUT)
        found = compensation(*lost_moments(D, Z))
        damping, error = by_the_rule(Z, D, 300, DAMPINGS)
        assert found.damping == damping
        assert found.held_out == pytest.approx(error, rel=1e-3, abs=1e-4)
        answers.add(damping)
    assert answers == {NONE, *DAMPINGS}


def test_what_was_lost_says_how_units_are_chosen_unless_it_is_noise() -> None:
    found = Compensation(torch.zeros(1, 1), 0.1, 0.9)
    assert damping_of_choice(found, 1.01 * NOISE, 1.0) == 0.1
    assert damping_of_choice(found, 0.99 * NOISE, 1.0) == LOCAL
    assert damping_of_choice(found, NOISE * 1e3, 1e3) == LOCAL
    assert damping_of_choice(found, 3.9e-4, 1.0, eps=1e-2) == LOCAL
    assert damping_of_choice(found, 4.1e-4, 1.0, eps=1e-2) == 0.1
    assert damping_of_choice(Compensation(torch.zeros(1, 1), NONE, 1.0), 1.0, 1.0) == LOCAL


def test_rows_that_never_move_make_nothing_good() -> None:
    """Those of the fit; those held out do move."""
    fit, held = (MomentSum(2, 1, constant=False) for _ in range(2))
    fit.update(torch.zeros(5, 2), torch.ones(5, 1))
    held.update(torch.ones(5, 2), torch.ones(5, 1))
    lost, out, _ = three(fit, held)
    found = compensation(lost, out)
    assert (found.damping, found.held_out) == (NONE, 1.0)
    assert not bool(found.B.any())


@pytest.mark.parametrize("damping", [NONE, 1e-2])
def test_a_consumer_of_units_that_never_move_keeps_its_weight(damping: float) -> None:
    sums = MomentSum(3, 2, constant=False)
    rows = torch.randn(9, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows[:, 1:] = 0
    sums.update(rows, rows[:, :2])
    W = torch.arange(6.0, dtype=torch.float64).reshape(2, 3)
    found = fit_consumer(sums.moments(), W, torch.tensor([1, 2]), damping)
    assert torch.equal(found.B, W.T[1:])
    assert found.condition == 1
    assert found.error == pytest.approx(1)


def test_errors_that_overflow_are_refused() -> None:
    sums = MomentSum(1, 1, constant=False, products=torch.float64)
    sums.update(torch.full((2, 1), 1e150, dtype=torch.float64), torch.ones(2, 1, dtype=torch.float64))
    with pytest.raises(NumericalError, match="error of a fit of 1 columns overflows"):
        sums.moments().error(torch.full((1, 1), 1e10, dtype=torch.float64))
