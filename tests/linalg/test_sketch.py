"""Sketches: repeatable, unbiased, and as accurate as they say."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from matrices import random
from sketches import count, gaussian, seeded

from statprune.linalg.interpolative import by_pivoted_qr
from statprune.linalg.sketch import CountSketch, GaussianSketch

WIDTH = 6
every_sketch = pytest.mark.parametrize("start", [gaussian, count])


@every_sketch
def test_merging_sketches_is_a_sketch_of_the_concatenation(start: Callable[..., GaussianSketch]) -> None:
    Z = random(500, WIDTH, 1)
    left, right = start(WIDTH, seed=1), start(WIDTH, seed=2)
    left.update(Z[:200])
    right.update(Z[200:])
    expected = left.matrix + right.matrix
    left.merge(right)
    assert left.rows == 500
    assert torch.equal(left.matrix, expected)


@every_sketch
def test_draws_come_from_the_generator_alone(start: Callable[..., GaussianSketch]) -> None:
    Z = random(600, WIDTH, 10)
    first, again, other = start(WIDTH, seed=3), start(WIDTH, seed=3), start(WIDTH, seed=4)
    state = torch.get_rng_state()
    first.update(Z)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(5)
    again.update(Z)
    other.update(Z)
    assert torch.equal(first.matrix, again.matrix)
    assert not torch.equal(first.matrix, other.matrix)


@pytest.mark.parametrize("kind", [GaussianSketch, CountSketch])
def test_gram_entries_are_unbiased_and_as_accurate_as_stated(
    kind: type[GaussianSketch] | type[CountSketch],
) -> None:
    Z = random(300, WIDTH, 11)
    norms = Z.norm(dim=0)
    generator = seeded(0)
    for rows in (25, 100):
        errors = []
        for _ in range(200):
            sketch = kind(WIDTH, rows, generator=generator)
            sketch.update(Z)
            assert sketch.matrix.shape == (rows, WIDTH)
            errors.append((sketch.matrix.T @ sketch.matrix - Z.T @ Z) / torch.outer(norms, norms))
        stacked = torch.stack(errors)
        stated = (2 / rows) ** 0.5
        assert float(stacked.mean(dim=0).abs().max()) < 5 * stated / 200**0.5
        spread = stacked.square().mean(dim=0).sqrt()
        assert float(spread.max()) < 1.3 * stated
        assert float(spread.max()) > 0.7 * stated  # reached on the diagonal: the bound is not slack


@pytest.mark.parametrize("kind", [GaussianSketch, CountSketch])
@pytest.mark.parametrize("unit", [1, 3])
def test_sketched_factor_is_nearly_as_good_as_the_exact_one(
    kind: type[GaussianSketch] | type[CountSketch], unit: int
) -> None:
    Z = random(3000, 12, 12)
    sketch = kind(12, 400, generator=seeded(1))
    sketch.update(Z)
    factor, exact = sketch.factor(unit=unit), by_pivoted_qr(Z, unit=unit)
    errors = factor.errors()
    for k in range(factor.units):
        kept = factor.interpolation(k)
        true = float((Z - Z[:, kept.kept_columns] @ kept.T).norm())
        # relative error of a squared norm about sqrt(2 / 400) = 0.07
        assert float(errors[k]) == pytest.approx(true, rel=0.2)
        assert true < 1.2 * float(exact.errors()[k])


def test_count_sketch_sends_each_row_to_one_bucket() -> None:
    sketch = CountSketch(1, 8, generator=seeded(5))
    for power in range(20):
        before = sketch.matrix
        sketch.update(torch.full((1, 1), 2.0**power, dtype=torch.float64))
        change = (sketch.matrix - before).flatten()
        assert change.abs().sort().values.tolist() == [0] * 7 + [2.0**power]


def test_sketches_refuse_what_cannot_be_repeated_or_held() -> None:
    with pytest.raises(ValueError, match="a sketch of 0 rows"):
        GaussianSketch(3, 0, generator=seeded(0))


def test_sketches_refuse_generators_of_accelerators() -> None:
    generator: Any = SimpleNamespace(device=torch.device("cuda"))
    with pytest.raises(ValueError, match="generator is on cuda; pass a CPU generator"):
        CountSketch(3, 4, generator=generator)


@pytest.mark.parametrize("kind", [GaussianSketch, CountSketch])
@pytest.mark.parametrize("unit", [1, 3])
def test_the_factor_is_that_of_what_was_sketched(
    kind: type[GaussianSketch] | type[CountSketch], unit: int
) -> None:
    sketch, scale = kind(12, 40, generator=seeded(2)), torch.linspace(1, 9, 12, dtype=torch.float64)
    sketch.update(random(100, 12, 4))
    found, wanted = sketch.factor(scale, unit), by_pivoted_qr(sketch.matrix, scale=scale, unit=unit)
    assert torch.equal(found.order, wanted.order)
    assert torch.equal(found.R, wanted.R)


def test_signs_within_a_bucket_are_even() -> None:
    """Of 65,536 tokens about 8,192 to a bucket: their sum is hardly ever beyond six deviations."""
    sketch = CountSketch(1, 8, generator=seeded(3))
    sketch.update(torch.ones(65_536, 1, dtype=torch.float64))
    assert float(sketch.matrix.abs().max()) < 6 * 8192**0.5
