"""Refit a site's carriers, and the consumer after each of them, to what has been noted.

A perceptron's activation is not linear. What goes through it is fitted to its slope where it is now, and the
step taken only as far as it does lower the error of the perceptron itself.

Sources: docs/algorithm.md, "Carry"; linalg/bilinear.py; slopes by central differences; a step that is halved
until the error falls: Bjorck, Numerical Methods for Least Squares Problems, 1996, chapter 9.2 (Gauss-Newton).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from statprune.anatomy.producers import Carrier, module_at
from statprune.anatomy.sites import Site
from statprune.errors import NonFiniteError
from statprune.linalg.bilinear import ROWS, Gated, Mixed, refit_producer, slices
from statprune.linalg.least_squares import ridge
from statprune.linalg.moments import MomentSum
from statprune.linalg.row_weights import of_rows, weighted_mean, weighted_sum
from statprune.surgery.linear import add_to_bias, set_weight, weight_of

AGAIN = 1e-1
"""Damping of the consumer's fit after that of a carrier, towards what it is."""

STEPS = (1.0, 0.5, 0.25)
"""Shares of a step that are tried."""

NEARBY = 2.0**-6
"""From here to there an activation's slope is measured, on either side."""


def fit_values(block: nn.Module, site: Site, reading: Mixed, Z: Tensor, target: Tensor) -> None:
    """Refit the values of `site` (attention), which has been cut, and its consumer after them.

    Z (rows, columns) is what the consumer reads, `target` (rows, outputs) what it should return; Z is
    overwritten.
    """
    consumer, carrier = _Consumer(module_at(block, site.consumer), reading.row_weights), site.carrier
    missing = consumer.missing(Z, target)
    if carrier is None or not bool(missing.any()):
        return
    D = refit_producer(reading, consumer.weight(Z.dtype), missing, constant=consumer.constant)
    del missing
    if _Rows.of(block, carrier, len(reading.F) // reading.group).add(D) is None:
        return
    d = D.to(reading.dtype)
    for rows in slices(reading.rows):
        Z[rows] += reading.products(d, rows).to(Z.dtype)
    consumer.fit(Z, consumer.missing(Z, target))


def fit_perceptron(
    block: nn.Module,
    site: Site,
    count: int,
    X: Tensor,
    target: Tensor,
    products: torch.dtype,
    row_weights: Tensor | None = None,
) -> None:
    """Refit the producers of a perceptron that has been cut to `count` units, and its consumer after each.

    X (rows, inputs) is what the producers read, `target` (rows, outputs) what the consumer should return;
    products of the fit are formed in `products`. `row_weights` (rows,): so many times each row counts.
    """
    own, consumer = Perceptron(block, site, count, X), _Consumer(module_at(block, site.consumer), row_weights)
    for producer in (own.up, own.activated):
        if producer is not None:
            _fit(own, producer, consumer, target, products)


def _fit(
    own: "Perceptron", producer: "_Rows", consumer: "_Consumer", target: Tensor, products: torch.dtype
) -> None:
    missing = consumer.missing(own.read(), target)
    before = consumer.left(missing)
    if before == 0:
        return
    X, S = producer.inputs(own.X).to(products), own.factors(producer).to(products)
    reading = Gated(X, S, consumer.row_weights)
    D = refit_producer(reading, consumer.weight(target.dtype), missing, constant=consumer.constant)
    del missing, reading, X, S
    for step in STEPS if bool(D.any()) else ():
        undo = producer.add(step * D)
        if undo is None:
            continue
        own.run(producer)
        Z = own.read()
        missing = consumer.missing(Z, target)
        if consumer.left(missing) < before:
            consumer.fit(Z, missing)
            return
        undo()
        own.run(producer)


@dataclass(frozen=True, eq=False)
class _Rows:
    """Some rows of a weight, and of its bias where it has one: those of a carrier."""

    module: Any
    rows: Tensor

    @staticmethod
    def of(block: nn.Module, carrier: Carrier, count: int) -> "_Rows":
        module = module_at(block, carrier.path)
        return _Rows(module, carrier.rows_of(count).to(module.weight.device))

    def __call__(self, X: Tensor) -> Tensor:
        """What they make of X (rows, inputs)."""
        made = X @ weight_of(self.module)[self.rows].T.to(X.dtype)
        return made if self.module.bias is None else made.add_(self.module.bias[self.rows].to(X.dtype))

    def inputs(self, X: Tensor) -> Tensor:
        """X, with a column of ones for the bias."""
        return X if self.module.bias is None else torch.cat([X, X.new_ones(len(X), 1)], dim=1)

    def add(self, D: Tensor) -> Callable[[], None] | None:
        """Add D (count, inputs), whose last column is for the bias where it has one more.

        Returns how to undo it; None where the weight's dtype does not hold the sum: then nothing is changed.
        """
        module = self.module
        old, bias = module.weight, module.bias

        def undo() -> None:
            module.weight, module.bias = old, bias

        W = weight_of(module).clone()
        W[self.rows] += D[:, : W.shape[1]].to(W.dtype)
        try:
            set_weight(module, W)
            if bias is not None and D.shape[1] > W.shape[1]:
                shift = torch.zeros_like(bias)
                shift[self.rows] = D[:, -1].to(bias.dtype)
                add_to_bias(module, shift)
        except NonFiniteError:
            undo()
            return None
        return undo


class Perceptron:
    """What the producers of a perceptron make of X (rows, inputs), kept up to date by `run`.

    `activated` goes through the activation; `up`, None where there is no gate, is what that is times.
    """

    def __init__(self, block: nn.Module, site: Site, count: int, X: Tensor) -> None:
        if site.activated is None or site.activation is None:
            raise ValueError(f"{site.name}: nothing says what goes through which activation.")
        self.X = X
        self.activated = _Rows.of(block, site.activated, count)
        self.up = None if site.carrier is None else _Rows.of(block, site.carrier, count)
        self._activation = module_at(block, site.activation)
        self._made = {id(each): each(X) for each in (self.activated, self.up) if each is not None}

    def run(self, producer: _Rows) -> None:
        """Its weight has changed."""
        del self._made[id(producer)]
        self._made[id(producer)] = producer(self.X)

    def read(self) -> Tensor:
        """Z (rows, units), what the consumer reads."""
        return self._by_pieces(self._activation, self.up)

    def factors(self, producer: _Rows) -> Tensor:
        """(rows, units): what Z moves by for each number that `producer` makes."""
        if producer is self.up:
            return self._by_pieces(self._activation, None)
        act = self._activation
        return self._by_pieces(lambda h: (act(h + NEARBY) - act(h - NEARBY)) / (2 * NEARBY), self.up)

    def _by_pieces(self, function: Callable[[Tensor], Tensor], times: _Rows | None) -> Tensor:
        before = self._made[id(self.activated)]
        found = torch.empty_like(before)
        for start in range(0, len(before), ROWS):
            rows = slice(start, start + ROWS)
            found[rows] = function(before[rows].clone())  # it may work in place
            if times is not None:
                found[rows] *= self._made[id(times)][rows]
        return found


class _Consumer:
    """The weight that reads a site, and what its output lacks; each row counts as `row_weights` say."""

    def __init__(self, module: Any, row_weights: Tensor | None) -> None:
        self._module, self.row_weights = module, row_weights
        self.constant = module.bias is not None

    def weight(self, dtype: torch.dtype) -> Tensor:
        """(columns, outputs)."""
        return weight_of(self._module).T.to(dtype)

    def missing(self, Z: Tensor, target: Tensor) -> Tensor:
        """Target less output, (rows, outputs)."""
        bias = self._module.bias
        wanted = target if bias is None else target - bias.to(target.dtype)
        return torch.addmm(wanted, Z, self.weight(Z.dtype), alpha=-1)

    def left(self, missing: Tensor) -> float:
        """The squares of what is missing, about its mean where a bias can make that good."""
        mean = missing.new_zeros(missing.shape[1])
        if self.constant:
            mean = weighted_mean(missing, self.row_weights)
        return sum(
            float(weighted_sum((missing[rows] - mean).square(), of_rows(self.row_weights, rows)).sum())
            for rows in slices(len(missing))
        )

    def fit(self, Z: Tensor, missing: Tensor) -> None:
        """Fit the weight, and the bias, to what is missing where Z is read."""
        module = self._module
        total = MomentSum(
            Z.shape[1], missing.shape[1], constant=self.constant, device=Z.device, products=Z.dtype
        )
        for rows in slices(len(missing)):
            total.update(Z[rows], missing[rows], of_rows(self.row_weights, rows))
        found = total.moments()
        fitted = ridge(found.G, found.C, AGAIN).X
        set_weight(module, weight_of(module) + fitted.T.to(weight_of(module).dtype))
        if self.constant:
            add_to_bias(module, found.shift(fitted))
