"""Which multiple the widths of perceptrons would have to be for their products to be faster, tried out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from statprune.evaluation.speed import Clock, take_turns

MULTIPLES = (8, 16, 32, 64)
GAIN = 1.02
"""A speed-up below this is not told from none."""


@dataclass(frozen=True)
class Perceptron:
    """Sizes of a perceptron: `neurons` between `hidden` values; `rows` of the first product a neuron."""

    neurons: int
    hidden: int
    rows: int


@dataclass(frozen=True)
class Roundings:
    """Seconds of all perceptrons' products as they are, and with neurons rounded up to each multiple."""

    as_they_are: float
    rounded: dict[int, float]

    @property
    def best(self) -> int | None:
        """The fastest multiple, if it is faster than the widths as they are by more than 2%."""
        multiple = min(self.rounded, key=self.rounded.__getitem__, default=None)
        if multiple is None or self.as_they_are < GAIN * self.rounded[multiple]:
            return None
        return multiple

    def told(self) -> str:
        """One sentence."""
        tried = ", ".join(map(str, self.rounded))
        if self.best is None:
            return f"Of the multiples that neurons could be rounded up to, none of {tried} makes it faster."
        gain = self.as_they_are / self.rounded[self.best]
        return (
            f"Neurons rounded up to multiples of {self.best} make the products of its perceptrons {gain:.2f} "
            f"x as fast: compress with --multiple {self.best}. Tried were {tried}."
        )

    def to_json(self) -> dict[str, Any]:
        """JSON-able content."""
        return {**asdict(self), "best": self.best}


def try_roundings(
    perceptrons: Mapping[Perceptron, int],
    time_all: Callable[[Sequence[Perceptron]], Mapping[Perceptron, float]],
) -> Roundings:
    """Time the perceptrons with neurons as they are, and rounded up to every one of `MULTIPLES`.

    Args:
        perceptrons: how many there are of each.
        time_all: seconds of each of those that it is given.
    """
    made = {
        multiple: {
            each: replace(each, neurons=-(-each.neurons // multiple) * multiple) for each in perceptrons
        }
        for multiple in MULTIPLES
    }
    wanted = dict.fromkeys(perceptrons)
    for rounded in made.values():
        wanted |= dict.fromkeys(rounded.values())
    seconds = time_all(tuple(wanted))
    return Roundings(
        sum(seconds[each] * count for each, count in perceptrons.items()),
        {
            multiple: sum(seconds[rounded[each]] * count for each, count in perceptrons.items())
            for multiple, rounded in made.items()
        },
    )


def products_timer(
    tokens: int, device: torch.device, dtype: torch.dtype, now: Clock, repeats: int
) -> Callable[[Sequence[Perceptron]], dict[Perceptron, float]]:
    """What times a perceptron's two products over `tokens` tokens: least seconds of alternating runs."""

    def once(each: Perceptron) -> float:
        made: dict[str, Any] = {"device": device, "dtype": dtype}
        hidden = torch.ones(tokens, each.hidden, **made)
        first = torch.ones(each.rows * each.neurons, each.hidden, **made)
        middle = torch.ones(tokens, each.neurons, **made)
        second = torch.ones(each.hidden, each.neurons, **made)
        began = now()
        torch.nn.functional.linear(hidden, first)
        torch.nn.functional.linear(middle, second)
        return now() - began

    def all_of(perceptrons: Sequence[Perceptron]) -> dict[Perceptron, float]:
        runs = {str(number): (lambda each=each: once(each)) for number, each in enumerate(perceptrons)}
        found = take_turns(runs, repeats)
        return {each: min(found[str(number)]) for number, each in enumerate(perceptrons)}

    return all_of
