"""Every tensor is made where the data is: where others would come to be, on `meta`, nothing goes there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import pytest
import torch
from matrices import damaged, random
from methods import blocked, blocks, cholesky, qr
from torch import Tensor

from statprune.linalg.bilinear import Gated, Mixed, refit_producer
from statprune.linalg.elimination import eliminate
from statprune.linalg.gram import CrossGram, Gram
from statprune.linalg.held_out import compensation, fit_consumer
from statprune.linalg.least_squares import positive_by_iteration, ridge, solve_upper, upper_by_iteration
from statprune.linalg.moments import MomentSum, in_two
from statprune.linalg.sketch import CountSketch, GaussianSketch
from statprune.linalg.tall_qr import TallQR

CPU = torch.device("cpu")
Z, Y = random(90, 12, 1), random(90, 5, 2)
DAMAGED = damaged(90, 4, 3, 3)
D, X = random(12, 4, 4), random(90, 4, 5)
F = random(4 * 90, 4, 6).reshape(4, 90, 4)
WEIGHT = random(5, 12, 7).float()


def sums(rows: slice, *, constant: bool) -> MomentSum:
    total = MomentSum(12, 5, constant=constant, device=CPU)
    total.update(Z[rows], Y[rows].float())
    return total


def of_halves(*, constant: bool) -> Any:
    halves = in_two(sums(slice(0, 60), constant=constant), sums(slice(60, 90), constant=constant))
    found = compensation(*halves.against(WEIGHT.T.double()))
    whole = halves.whole()
    return found, whole, fit_consumer(whole, WEIGHT, torch.tensor([0, 2, 5], device=CPU), found.damping)


def merged(make: Callable[[int], Any]) -> Any:
    """What two parts, summed apart, come to."""
    one, other = make(0), make(1)
    one.update(Z[:50])
    other.update(Z[50:])
    one.merge(other)
    return one.factor(torch.linspace(1, 2, 12, device=CPU, dtype=torch.float64), 3)


def crossed() -> Tensor:
    total = CrossGram(12, 5, device=CPU)
    total.update(Z, Y)
    return total.matrix


def generator(seed: int) -> torch.Generator:
    return torch.Generator(CPU).manual_seed(seed)


def of_factor(method: Callable[..., Any], A: Tensor, unit: int) -> Any:
    factor = method(A, None, unit)
    return (
        factor,
        factor.pivot_norms() if unit == 1 else None,
        [factor.interpolation(count) for count in (0, 1, factor.units)],
        factor.errors(WEIGHT.double()),
    )


CASES: dict[str, Callable[[], Any]] = {
    "ridge": lambda: ridge(Z.T @ Z, Z.T @ Y, 1e-3),
    "a triangle": lambda: solve_upper(torch.linalg.qr(Z).R, Z.T @ Y),
    "a triangle, damped": lambda: solve_upper(torch.linalg.qr(Z).R, Z.T @ Y, max_condition=2.0, attempts=40),
    "conditions": lambda: [
        upper_by_iteration(torch.linalg.qr(Z).R),
        positive_by_iteration(1.0, torch.linalg.cholesky(Z.T @ Z)),
    ],
    "neurons go": lambda: eliminate(Z.T @ Z, Z.T @ Y, unit=1, damping=1e-3),
    "heads go": lambda: eliminate(Z.T @ Z, Z.T @ Y, unit=3, damping=1e-3),
    "halves": lambda: of_halves(constant=False),
    "halves about their means": lambda: of_halves(constant=True),
    "Gram matrices": lambda: merged(lambda _: Gram(12, device=CPU)),
    "triangles": lambda: merged(lambda _: TallQR(12, device=CPU)),
    "Gaussian sketches": lambda: merged(
        lambda seed: GaussianSketch(12, 40, generator=generator(seed), device=CPU)
    ),
    "count sketches": lambda: merged(lambda seed: CountSketch(12, 40, generator=generator(seed), device=CPU)),
    "across": crossed,
    "a gate": lambda: refit_producer(Gated(X, Z), D @ D.T @ Z.T @ Y, Y, constant=True),
    "heads": lambda: refit_producer(Mixed(F, 2), Z.T @ Y, Y, constant=True),
}
CASES |= {
    f"{method.__name__}, units of {unit}": lambda method=method, unit=unit: of_factor(method, DAMAGED, unit)
    for method in (qr, cholesky, blocked, blocks)
    for unit in (1, 3)
}


def tensors(found: Any) -> Iterator[Tensor]:
    if isinstance(found, Tensor):
        yield found
    elif isinstance(found, list | tuple):
        for each in found:
            yield from tensors(each)
    elif is_dataclass(found):
        for each in fields(found):
            yield from tensors(getattr(found, each.name))


@pytest.mark.parametrize("case", list(CASES))
@pytest.mark.filterwarnings("ignore::statprune.errors.NumericalWarning")
def test_nothing_is_made_where_the_data_is_not(case: str) -> None:
    expected = list(tensors(CASES[case]()))
    with torch.device("meta"):
        found = list(tensors(CASES[case]()))
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)
