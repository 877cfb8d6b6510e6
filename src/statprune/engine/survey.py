"""One measurement for every budget: each site's error curve, and what narrowing it alone does to the outputs.

The calibration data walks through the dense model once. At every block the sites' Gram matrices are summed,
their units eliminated one group after the other, and, for a few widths, the consumer is fitted to the units
left and a few samples are sent through, everything else being dense: they walk on beside the dense ones, to
the outputs. Every block is visited once. Nothing is changed.
"""

from collections.abc import Sequence
from math import ceil

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from statprune.anatomy.lookup import Anatomy
from statprune.anatomy.producers import module_at
from statprune.anatomy.sites import Site
from statprune.budget.damage import DamageCurve, widths_to_measure
from statprune.calibration.batches import Batch
from statprune.calibration.stream import Reader, advance, before_first_block
from statprune.engine.divergence import every_row, first_of, taken
from statprune.engine.experts import Readings
from statprune.engine.measure import consumer_weight, naming
from statprune.engine.probe import Probe, Tried
from statprune.engine.progress import Progress, no_progress
from statprune.linalg.elimination import eliminate
from statprune.linalg.gram import Gram
from statprune.linalg.held_out import LOCAL
from statprune.linalg.least_squares import ridge
from statprune.surgery.linear import weight_of

LEVELS = (0.05, 0.25)
"""Relative squared errors of a site at which the model's outputs are measured."""

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
    """The damage curve of every site, and what damage is measured in.

    Cost: a forward pass of `batches`, a Gram matrix and an elimination a site, and for each site as many
    passes of the probe's samples through the blocks behind it as there are LEVELS.
    """
    tried: dict[str, Tried] = {}
    stream = before_first_block(model, anatomy, batches)
    for index, block in enumerate(anatomy.blocks):
        sites = anatomy.sites_of_block(index)
        probe.stream.stand_before(index)
        seen = {
            site.name: Readings(site, block)
            if site.experts
            else Gram(site.units * site.columns, device=model.device)
            for site in sites
        }
        advance(stream, block, index, {site.consumer: _reader(seen[site.name], site) for site in sites})
        for site in sites:
            found = seen.pop(site.name)
            if isinstance(found, Readings):
                tried[site.name] = found.curve(block, probe, LEVELS, DAMPING)
            else:
                tried[site.name] = _tried(site, block, found.matrix, probe)
        probe.advance(block, index)
        progress("survey", index + 1, len(anatomy.blocks))
    divergences, unit = probe.divergences()
    progress("compare", 1, 1)
    return {name: each.curve(divergences) for name, each in tried.items()}, unit


def _reader(gram: Gram | Readings, site: Site) -> Reader:
    """Sums products formed in float32: far finer than the fits' damping."""
    if isinstance(gram, Readings):
        return gram.update
    return naming(lambda Z: gram.update(Z, product_dtype=torch.float32), site)


def _tried(site: Site, block: nn.Module, G: Tensor, probe: Probe) -> Tried:
    W = consumer_weight(site, block)
    whole = float(((W @ G) * W).sum())
    if whole <= 0:
        return Tried(np.zeros(site.units + 1))
    found = eliminate(G, W.T, unit=site.columns, damping=DAMPING)
    error = (found.errors / whole).numpy()
    tries = [
        (width, _try(site, block, G, W, found.order[:width], probe))
        for width in widths_to_measure(error, LEVELS)
    ]
    return Tried(error, tries)


def _try(site: Site, block: nn.Module, G: Tensor, W: Tensor, kept: Tensor, probe: Probe) -> int:
    """The dense model with only `site` narrowed to `kept`: the consumer reads nothing of the others."""
    columns = site.columns_of(kept)
    weight = weight_of(module_at(block, site.consumer))
    before = weight.clone()
    narrowed = torch.zeros_like(W)
    fitted = ridge(G[columns[:, None], columns], G[columns] @ W.T, DAMPING)
    narrowed[:, columns] = fitted.X.T
    try:
        weight.copy_(narrowed)
        return probe.tried(block, site.block)
    finally:
        weight.copy_(before)
