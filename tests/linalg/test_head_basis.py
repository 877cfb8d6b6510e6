"""Columns of heads turned: against singular values, head by head."""

from contextlib import nullcontext

import pytest
import torch

from statprune.errors import NumericalError, NumericalWarning
from statprune.linalg.gram import Gram
from statprune.linalg.head_basis import NOISE, head_basis, noise_of, standardised_ridge

ROWS, WIDTH, HEADS, OUTPUTS = 200, 6, 4, 15


def drawn() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    scales = torch.logspace(0, 1.5, WIDTH, dtype=torch.float64).repeat(HEADS)
    Z = torch.randn(ROWS, HEADS * WIDTH, generator=generator, dtype=torch.float64) * scales
    return Z, torch.randn(OUTPUTS, HEADS * WIDTH, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("count", [1, 3, 6])
def test_of_each_head_the_best_approximation_of_what_it_adds_is_kept(count: int) -> None:
    """Eckart and Young: what is lost are the smaller singular values."""
    Z, W = drawn()
    A = head_basis(Z.T @ Z, W, WIDTH, count=count)
    assert A.shape == (HEADS * WIDTH, HEADS * count)
    torch.testing.assert_close(A.norm(dim=0), torch.ones(HEADS * count, dtype=torch.float64))
    for head in range(HEADS):
        own, kept = (slice(head * each, (head + 1) * each) for each in (WIDTH, count))
        assert not A[:, kept][[row for row in range(len(A)) if not own.start <= row < own.stop]].any()
        added, columns = Z[:, own] @ W[:, own].T, Z[:, own] @ A[own, kept]
        left = (added - columns @ torch.linalg.lstsq(columns, added).solution).square().sum()
        smaller = torch.linalg.svdvals(added)[count:].square().sum()
        assert float(left) == pytest.approx(float(smaller), rel=1e-3, abs=1e-8)


def test_heads_that_share_their_values_are_turned_alike() -> None:
    Z, W = drawn()
    A = head_basis(Z.T @ Z, W, WIDTH, group=2, count=2)
    each = [A[head * WIDTH : (head + 1) * WIDTH, 2 * head : 2 * head + 2] for head in range(HEADS)]
    assert torch.equal(each[0], each[1])
    assert torch.equal(each[2], each[3])
    assert not torch.allclose(each[0], each[2])


def test_a_head_that_says_nothing_has_a_basis_all_the_same() -> None:
    Z, W = drawn()
    Z[:, :WIDTH] = 0
    A = head_basis(Z.T @ Z, W, WIDTH)
    assert bool(torch.isfinite(A).all())
    assert int(torch.linalg.matrix_rank(A)) == HEADS * WIDTH


def few_that_differ(distinct: int, columns: int) -> torch.Tensor:
    """Rows in float32, each of them again and again, one after the other."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(distinct, columns, generator=generator).repeat_interleave(8192 // distinct, dim=0)


def of_low_rank(rank: int, columns: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2000, rank, generator=generator) @ torch.randn(rank, columns, generator=generator)


@pytest.mark.filterwarnings("ignore::statprune.errors.NumericalWarning")
@pytest.mark.parametrize("damping", [1e-5, 1e-4, 1e-2])
@pytest.mark.parametrize("Z", [of_low_rank(20, 256), few_that_differ(2, 512), few_that_differ(8, 512)])
def test_columns_of_rounding_alone_change_nothing(Z: torch.Tensor, damping: float) -> None:
    """Of values of few tokens most directions are empty: what float32 leaves there has any sign."""
    W = torch.randn(OUTPUTS, Z.shape[1], generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    gram = Gram(Z.shape[1], product_dtype=torch.float32)
    gram.update(Z)
    G = gram.take()
    A = head_basis(G, W, 64)
    H, C = A.T @ G @ A, A.T @ G @ W.T
    target = Z.double() @ W.T
    left = target - Z.double() @ A @ standardised_ridge(H, C, damping, noise_of(G, 64, 64))
    assert float(left.norm() / target.norm()) < max(damping, 2e-4)


def test_a_rescue_is_announced_and_bounded() -> None:
    noise = torch.full((4,), NOISE, dtype=torch.float64)
    C = torch.ones(4, 2, dtype=torch.float64)
    for negative, says in ((0.5, None), (5, "10 times"), (50, "100 times")):
        G = torch.diag(torch.tensor([1.0, 0.5, 0.1, -negative * NOISE], dtype=torch.float64))
        with pytest.warns(NumericalWarning, match=says) if says else nullcontext():
            X = standardised_ridge(G, C, 1e-5, noise)
        assert bool(torch.isfinite(X).all())
        torch.testing.assert_close(X[0], C[0], rtol=1e-3, atol=0.0)
    with pytest.raises(NumericalError):
        standardised_ridge(torch.diag(torch.tensor([1.0, 1, 1, -1e-2])).double(), C, 1e-5, noise)


def test_heads_of_other_sizes_are_damped_alike() -> None:
    """What one head says is followed as far whatever another one's numbers are."""
    Z, W = drawn()
    found = []
    for larger in (1.0, 1e3):
        large = torch.ones(HEADS * WIDTH, dtype=torch.float64)
        large[:WIDTH] = larger
        G = (Z * large).T @ (Z * large)
        X = standardised_ridge(G, G @ (W / large).T, 1e-5, noise_of(G, WIDTH, WIDTH))
        found.append(X * large[:, None])
    torch.testing.assert_close(found[1], found[0], rtol=1e-6, atol=1e-6)


def test_of_nothing_nothing_is_fitted() -> None:
    assert not standardised_ridge(torch.zeros(3, 3), torch.ones(3, 2), 1e-2, torch.zeros(3)).any()
