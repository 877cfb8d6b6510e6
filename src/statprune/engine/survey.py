"""One measurement for every budget: each site's error curve, and what narrowing it alone does to the outputs.

The calibration data walks through the dense model once. At every block the sites' Gram matrices are summed,
their units eliminated one group after the other, and, for a few widths, the consumer is fitted to the units
left and a few samples are sent through, everything else being dense: they walk on beside the dense ones, to
the outputs. Every block is visited once. Nothing is changed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import ceil
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from statprune.anatomy.lookup import Anatomy
from statprune.anatomy.producers import module_at
from statprune.anatomy.ranks import merged
from statprune.anatomy.shelf import State
from statprune.anatomy.sites import Site
from statprune.budget.damage import DamageCurve, Floats, widths_to_measure
from statprune.budget.value_dim import columns_tried, values_name
from statprune.calibration.batches import Batch
from statprune.calibration.reading import Reader
from statprune.calibration.routing import hidden_of
from statprune.calibration.share import exact, share
from statprune.calibration.stream import Stream, advance, before_first_block
from statprune.engine.divergence import every_row, first_of, taken
from statprune.engine.experts import Readings
from statprune.engine.measure import at_site, consumer_weight, naming
from statprune.engine.probe import Candidates, Probe
from statprune.engine.progress import Facts, Progress, no_progress
from statprune.engine.row_weights import row_weights_of
from statprune.linalg.elimination import eliminate
from statprune.linalg.gram import Gram, moment_dtype
from statprune.linalg.head_basis import head_basis, noise_of, standardised_ridge
from statprune.linalg.held_out import LOCAL
from statprune.linalg.least_squares import ridge
from statprune.surgery.linear import weight_of

LEVELS = (0.05, 0.25)
"""Relative squared errors of a site at which the model's outputs are measured."""

MEASURED = (0.25, 0.5)
"""Shares of the columns of a head's values with which the model's outputs are measured."""

FEWEST_TOKENS = 4096
"""Of the calibration tokens at least so many are measured on, and four times the widest site's columns."""

DAMPING = LOCAL
"""Of the local fits whose errors and outputs are measured, as in the refit."""


def to_survey(anatomy: Anatomy, batches: Sequence[Batch]) -> list[Batch]:
    """The first samples, as many as have the tokens that the curves need."""
    columns = max(site.units * site.columns * site.sparsity for site in anatomy.sites)
    wanted = max(FEWEST_TOKENS, ceil(4 * columns))
    return taken(batches, first_of(batches, every_row(batches), wanted))


@torch.no_grad()
def survey(
    model: PreTrainedModel,
    anatomy: Anatomy,
    batches: Sequence[Batch],
    probe: Probe,
    progress: Progress = no_progress,
) -> tuple[dict[str, DamageCurve], str]:
    """The damage curve of every site and, where it has some, of its values; and what damage is measured in.

    Cost: a forward pass of `batches`, a Gram matrix and an elimination a site, and for each site as many
    passes of the probe's samples through the blocks behind it as there are LEVELS.
    """
    errors: dict[str, Floats] = {}
    stream = before_first_block(model, anatomy, share(batches, anatomy.ranks).of(batches))
    few = exact(batches)
    for index, block in anatomy.visited():
        sites, earlier = anatomy.sites_of_block(index), anatomy.shelf.earlier("survey", index)
        probe.stream.stand_before(index)
        if earlier is not None:
            advance(stream, block, index)
            found = {name: _candidates_of(earlier, name) for name in earlier.facts}
        else:
            found = _candidates(anatomy, stream, block, index, few)
            anatomy.shelf.note("survey", index, _state_of(found))
        for tried in (each for site in sites for each in _tried(site) if each.name in found):
            errors[tried.name] = found[tried.name].error
            for width, weight in found[tried.name].weights:
                probe.try_out(block, tried, width, weight)
        probe.advance(block, index)
        progress("survey", index + 1, len(anatomy.blocks), Facts(recalled=earlier is not None))
    measured, unit = probe.divergences()
    progress("compare", 1, 1)
    return {name: DamageCurve(error, measured.get(name, ())) for name, error in errors.items()}, unit


def _candidates(
    anatomy: Anatomy, stream: Stream, block: nn.Module, index: int, few: bool
) -> dict[str, Candidates]:
    """Advance the stream by one block, and say of each of its sites what it could become.

    With `few` tokens sums are formed as `moment_dtype` has it; float32 is far finer than the fits' damping.
    """
    ranks, sites = anatomy.ranks, anatomy.sites_of_block(index)
    seen = {site.name: _empty(site, block, stream.hidden[0].dtype, few) for site in sites}
    _sum_up(stream, block, index, sites, seen)
    found: dict[str, Candidates] = {}
    wholes: dict[str, Gram] = {}
    for site in sites:
        each = seen.pop(site.name)
        if isinstance(each, Readings):
            with at_site(site):
                found[site.name] = each.candidates(LEVELS, DAMPING, ranks)
            continue
        whole = merged(ranks, each, anatomy.owner_of(site))
        if whole is not None:
            wholes[site.name] = whole
    for site in sites:
        if site.name in wholes:
            with at_site(site):
                G = wholes.pop(site.name).take()
                if site.values_apart:
                    found[values_name(site)] = _of_values(site, block, G)
                found[site.name] = _of_site(site, block, G)
    every = [(each.name, anatomy.owner_of(site)) for site in sites for each in _tried(site)]
    return {name: ranks.same(found.get(name), owner) for name, owner in every}


def _sum_up(
    stream: Stream,
    block: nn.Module,
    index: int,
    sites: Sequence[Site],
    seen: Mapping[str, Gram | Readings],
) -> None:
    """Advance the stream by one block; `seen` takes in what the sites' consumers read, tokens weighted."""
    read: dict[str, Any] = {}

    def behind(site: Site) -> Reader:
        def take(returned: Tensor) -> None:
            hidden = returned
            for path in site.residual:
                hidden = hidden + hidden_of(read[path])
            seen[site.name].update(read.pop(site.consumer), row_weights_of(site, hidden))

        return naming(take, site)

    paths = {path for site in sites for path in (*site.residual, site.consumer)}
    readers = {path: partial(read.__setitem__, path) for path in paths}
    writers = {site.consumer: behind(site) for site in sites}
    advance(stream, block, index, readers, writers, whole=True)


def _state_of(found: Mapping[str, Candidates]) -> State:
    tensors, widths = {}, {}
    for name, each in found.items():
        tensors[name] = torch.from_numpy(each.error)
        tensors |= {f"{name}.{width}": weight for width, weight in each.weights}
        widths[name] = [width for width, _ in each.weights]
    return State(tensors, widths)


def _candidates_of(state: State, name: str) -> Candidates:
    weights = [(width, state.tensors[f"{name}.{width}"]) for width in state.facts[name]]
    return Candidates(state.tensors[name].numpy(), weights)


def _tried(site: Site) -> list[Site]:
    """The site, and once more under the name of its values, where it has some."""
    return [site, replace(site, name=values_name(site))] if site.values_apart else [site]


def _empty(site: Site, block: nn.Module, dtype: torch.dtype, few: bool) -> Gram | Readings:
    columns = site.units * site.columns
    products = moment_dtype(columns, dtype, few=few)
    if site.experts:
        return Readings(site, block, products)
    device = weight_of(module_at(block, site.consumer)).device
    return Gram(columns, device=device, product_dtype=products)


def _of_site(site: Site, block: nn.Module, G: Tensor) -> Candidates:
    W = consumer_weight(site, block)
    whole = float(((W @ G) * W).sum())
    if whole <= 0:
        return Candidates(np.zeros(site.units + 1))
    found = eliminate(G, W.T, unit=site.columns, damping=DAMPING)
    error = (found.errors / whole).numpy()
    weights = [
        (width, _narrowed(site, block, G, W, found.order[:width]))
        for width in widths_to_measure(error, LEVELS)
    ]
    return Candidates(error, weights)


def _of_values(site: Site, block: nn.Module, G: Tensor) -> Candidates:
    """By columns that the values of every head keep, the first of its basis."""
    W = consumer_weight(site, block)
    whole, error = float(((W @ G) * W).sum()), np.ones(site.head_dim + 1)
    if whole <= 0:
        return Candidates(np.zeros(site.head_dim + 1))
    A = head_basis(G, W, site.head_dim, site.group)
    H, C = A.T @ G @ A, A.T @ G @ W.T
    weights, measured = [], {max(1, round(part * site.head_dim)) for part in MEASURED}
    error[-1] = 0.0
    for dim in columns_tried(site):
        kept = torch.arange(len(A), device=A.device).reshape(-1, site.head_dim)[:, :dim].flatten()
        own, target = H[kept[:, None], kept], C[kept]
        X = standardised_ridge(own, target, DAMPING, noise_of(G, site.head_dim, dim))
        error[dim:-1] = max(0.0, 1 - float((X * (2 * target - own @ X)).sum()) / whole)
        if dim in measured:
            weights.append((dim, (A[:, kept] @ X).T.to(weight_of(module_at(block, site.consumer)).dtype)))
    return Candidates(error, weights)


def _narrowed(site: Site, block: nn.Module, G: Tensor, W: Tensor, kept: Tensor) -> Tensor:
    """What the consumer's weight becomes if it reads the units `kept` alone."""
    columns = site.columns_of(kept)
    narrowed = torch.zeros_like(weight_of(module_at(block, site.consumer)))
    target = G[columns] @ W.T  # before the other part of G is copied, so that one is there at a time
    fitted = ridge(G[columns[:, None], columns], target, DAMPING)
    narrowed[:, columns] = fitted.X.T.to(narrowed.dtype)
    return narrowed
