"""Columns of heads turned: against singular values, head by head."""

import pytest
import torch

from statprune.linalg.gram import Gram
from statprune.linalg.head_basis import head_basis, standardised_ridge

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


@pytest.mark.parametrize("damping", [1e-5, 1e-4, 1e-2])
def test_columns_of_rounding_alone_change_nothing(damping: float) -> None:
    """Of values of few tokens most directions are empty: what float32 leaves there has any sign."""
    generator = torch.Generator().manual_seed(1)
    Z = torch.randn(2000, 20, generator=generator) @ torch.randn(20, 256, generator=generator)
    W = torch.randn(OUTPUTS, 256, generator=generator, dtype=torch.float64)
    gram = Gram(256, product_dtype=torch.float32)
    gram.update(Z)
    G = gram.take()
    A = head_basis(G, W, 64)
    H, C = A.T @ G @ A, A.T @ G @ W.T
    assert float(H.diagonal().min()) < 0
    target = Z.double() @ W.T
    left = target - Z.double() @ A @ standardised_ridge(H, C, damping)
    assert float(left.norm() / target.norm()) < damping


def test_of_nothing_nothing_is_fitted() -> None:
    assert not standardised_ridge(torch.zeros(3, 3), torch.ones(3, 2), 1e-2).any()
