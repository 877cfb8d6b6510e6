"""Least squares removal and mask tuning against numpy, and against every candidate tried."""

from itertools import combinations

import numpy as np
import pytest
import torch

from benchmarks.quality.least_squares_removal import DAMPING, remove_units
from benchmarks.quality.mask_tuning import tuned_scalars, unit_products
from statprune.anatomy.lookup import anatomy_of
from statprune.anatomy.producers import module_at
from statprune.surgery.linear import weight_of
from tests.benchmarks.twins import behind, budget_of, consumers, reads_of, run_peer
from tests.tiny import tiny_model

# Least squares


def system(units: int, unit: int, seed: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Correlated activations (60, units * unit), a weight, and the ridge."""
    generator = np.random.default_rng(seed)
    m = units * unit
    Z = generator.normal(size=(60, m)) @ (np.eye(m) + 0.5 * generator.normal(size=(m, m)))
    return Z, generator.normal(size=(5, m)), DAMPING * float((Z**2).sum()) / m


def refit(Z: np.ndarray, W: np.ndarray, ridge: float, columns: list[int]) -> tuple[np.ndarray, float]:
    """The least of ||Z (V - W)^T||^2 + ridge ||V - W||^2 over V zero outside `columns`, and where."""
    stacked = np.vstack([Z, np.sqrt(ridge) * np.eye(Z.shape[1])])
    target = stacked @ W.T
    V = np.linalg.lstsq(stacked[:, columns], target, rcond=None)[0]
    return V.T, float(((target - stacked[:, columns] @ V) ** 2).sum())


@pytest.mark.parametrize(("units", "unit"), [(9, 1), (5, 3)])
@pytest.mark.parametrize("seed", range(4))
def test_removal_is_what_trying_every_candidate_gives(units: int, unit: int, seed: int) -> None:
    Z, W, ridge = system(units, unit, seed)

    def columns_of(kept: list[int]) -> list[int]:
        return [u * unit + i for u in kept for i in range(unit)]

    left = list(range(units))
    for count in range(units - 1, 0, -1):
        tried = [[u for u in left if u != gone] for gone in left]
        left = min(tried, key=lambda kept: refit(Z, W, ridge, columns_of(kept))[1])
        kept, weight = remove_units(torch.from_numpy(W), torch.from_numpy(Z.T @ Z), unit=unit, count=count)
        assert kept.tolist() == left
        expected, _ = refit(Z, W, ridge, columns_of(left))
        np.testing.assert_allclose(weight.numpy(), expected, rtol=1e-8, atol=1e-10)


def test_removal_is_near_the_best_subset_and_beats_dropping() -> None:
    Z, W, ridge = system(8, 1, 7)
    kept, _ = remove_units(torch.from_numpy(W), torch.from_numpy(Z.T @ Z), unit=1, count=4)
    errors = {subset: refit(Z, W, ridge, list(subset))[1] for subset in combinations(range(8), 4)}
    assert errors[tuple(kept.tolist())] <= 1.5 * min(errors.values())
    assert errors[tuple(kept.tolist())] < sorted(errors.values())[len(errors) // 10]


def test_a_column_that_is_never_active_goes_first() -> None:
    Z, W, _ = system(6, 1, 3)
    Z[:, 2], W[:, 2] = 0, 100
    kept, weight = remove_units(torch.from_numpy(W), torch.from_numpy(Z.T @ Z), unit=1, count=5)
    assert kept.tolist() == [0, 1, 3, 4, 5]
    np.testing.assert_allclose(weight.numpy(), W[:, kept], rtol=1e-10)


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_least_squares_fits_each_site_behind_those_already_cut(family: str) -> None:
    model, twin = tiny_model(family).double(), tiny_model(family).double()
    dense = anatomy_of(twin)
    anatomy, widths = run_peer("least-squares", model, budget_of("params"))
    for site in dense.sites:
        Z = reads_of(twin, consumers(dense))[site.name]
        own = weight_of(module_at(dense.blocks[site.block], site.consumer))
        G = torch.from_numpy(Z.T @ Z)
        kept, weight = remove_units(own, G, unit=site.columns, count=widths[site.name])
        thin = weight_of(module_at(anatomy.blocks[site.block], site.consumer))
        torch.testing.assert_close(thin, weight, rtol=1e-7, atol=1e-9)
        own[:] = 0
        own[:, site.columns_of(kept)] = weight


# Mask tuning


def test_scalars_are_those_of_least_squares_on_the_outputs() -> None:
    generator = np.random.default_rng(0)
    Z, W = generator.normal(size=(50, 12)), generator.normal(size=(7, 12))
    Y = Z @ (W + 0.3 * generator.normal(size=W.shape)).T
    outputs = [Z[:, 3 * u : 3 * u + 3] @ W[:, 3 * u : 3 * u + 3].T for u in range(4)]
    design = np.stack([each.ravel() for each in outputs], axis=1)
    A = unit_products(torch.from_numpy(Z.T @ Z), torch.from_numpy(W), 3)
    np.testing.assert_allclose(A.numpy(), design.T @ design)
    found = tuned_scalars(A, torch.from_numpy(design.T @ Y.ravel()))
    expected = np.linalg.lstsq(design, Y.ravel(), rcond=None)[0]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4)


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_every_site_is_tuned_to_the_dense_residual_stream(family: str) -> None:
    model, twin = tiny_model(family).double(), tiny_model(family).double()
    dense = anatomy_of(twin)
    anatomy, widths = run_peer("mask-tuning", model, budget_of("params"))
    reads, wanted = reads_of(twin, consumers(dense)), reads_of(twin, behind(dense))
    kept = {}
    for site in dense.sites:
        Z = reads[site.name].reshape(-1, site.units, site.columns)
        own = weight_of(module_at(dense.blocks[site.block], site.consumer))
        W = own.numpy().reshape(-1, site.units, site.columns)
        strength = [np.linalg.norm(Z[:, u] @ W[:, u].T) for u in range(site.units)]
        kept[site.name] = np.sort(np.argsort(strength)[::-1][: widths[site.name]])
        W[:, [u for u in range(site.units) if u not in kept[site.name]]] = 0  # a view: the twin is cut
    moved = 0
    for site in dense.sites:
        own = weight_of(module_at(dense.blocks[site.block], site.consumer))
        Z, total = (reads_of(twin, paths(dense))[site.name] for paths in (consumers, behind))
        missing = wanted[site.name] - (total - Z @ own.numpy().T)
        columns = [site.columns_of(torch.tensor([u])).numpy() for u in kept[site.name]]
        outputs = np.stack([(Z[:, c] @ own.numpy()[:, c].T).ravel() for c in columns], axis=1)
        scalars = np.linalg.lstsq(outputs, missing.ravel(), rcond=None)[0]
        assert np.abs(scalars).max() < 10
        for scalar, c in zip(scalars, columns, strict=True):
            own[:, c] *= scalar
        thin = weight_of(module_at(anatomy.blocks[site.block], site.consumer))
        torch.testing.assert_close(thin, own[:, np.concatenate(columns)], rtol=1e-3, atol=1e-4)
        moved += float(np.abs(scalars - 1).max()) > 0.1
    assert moved > 2, "nothing was tuned"


def test_scalars_that_run_away_are_not_used() -> None:
    A = torch.eye(2, dtype=torch.float64)
    for far in (11.0, -11.0):
        assert tuned_scalars(A, torch.tensor([far, 1.0], dtype=torch.float64)).tolist() == [1, 1]
    assert tuned_scalars(A, torch.tensor([9.0, 1.0], dtype=torch.float64))[0] == pytest.approx(9, rel=1e-4)


def test_twins_share_their_scalar_and_the_silent_keep_theirs() -> None:
    A = torch.tensor([[1.0, 1, 0], [1, 1, 0], [0, 0, 0]], dtype=torch.float64)
    scalars = tuned_scalars(A, torch.tensor([3.0, 3, 0], dtype=torch.float64))
    np.testing.assert_allclose(scalars.numpy(), [1.5, 1.5, 1], rtol=1e-4)
