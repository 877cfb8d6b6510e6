"""Time what widths cost on this device: one block's sites, narrowed one at a time, run in alternation."""

from collections.abc import Sequence
from copy import deepcopy
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from statprune.anatomy.lookup import Anatomy
from statprune.anatomy.sites import Site
from statprune.budget.latency import Latency
from statprune.calibration.batches import Batch
from statprune.calibration.stream import Stream, advance, before_first_block
from statprune.surgery.cut import cut, own_columns

SHARES = (0.0, 0.125, 0.25, 0.5, 0.75, 1.0)
"""Of a site's units, at which its block is timed; 0 stands for one unit."""

REPEATS = 7


@torch.no_grad()
def time_widths(model: PreTrainedModel, anatomy: Anatomy, batch: Batch) -> Latency:
    """Seconds of every site at every width, from the first block of each shape.

    With a the attention's and f the feed-forward's width, t(a, f) is taken to be A(a) + F(f): measured are
    t(a, 1) and t(1, f), and what is left at (1, 1), norms and the like, is shared by the two. Medians of
    REPEATS runs, all shapes in turn, so that a slow moment of the machine meets all of them.
    """
    stream = before_first_block(model, anatomy, [batch])
    shapes: dict[tuple[Any, ...], dict[str, list[tuple[int, float]]]] = {}
    seconds: dict[str, Sequence[tuple[int, float]]] = {}
    for index, block in enumerate(anatomy.blocks):
        stream.stand_before(index)
        sites = anatomy.sites_of_block(index)
        shape = tuple((site.part, site.units, site.columns, site.parameters_per_unit) for site in sites)
        if shape not in shapes:
            shapes[shape] = _timed(anatomy, block, index, stream)
        for site in sites:
            seconds[site.name] = shapes[shape][site.part]
    rows, length = batch["attention_mask"].shape
    conditions = {
        "device": str(model.device),
        "threads": torch.get_num_threads() if model.device.type == "cpu" else None,
        "batch": rows,
        "seq_len": length,
        "dtype": str(model.dtype).removeprefix("torch."),
        "repeats": REPEATS,
    }
    return Latency(seconds, conditions)


def _timed(
    anatomy: Anatomy, block: nn.Module, index: int, stream: Stream
) -> dict[str, list[tuple[int, float]]]:
    sites = anatomy.sites_of_block(index)
    levels = {site.part: _levels(site) for site in sites}
    variants = {
        (site.part, width): _narrow(anatomy, block, index, {site.part: width})
        for site in sites
        for width in levels[site.part]
    }
    runs: dict[tuple[str, int], list[float]] = {key: [] for key in variants}
    for repeat in range(REPEATS + 1):
        for key, variant in variants.items():
            spent = _seconds(stream, variant, index)
            if repeat:  # the first run warms up
                runs[key].append(spent)
    times = {key: median(spent) for key, spent in runs.items()}
    least = min(times[site.part, levels[site.part][0]] for site in sites)
    shared = least * (len(sites) - 1) / len(sites)
    return {
        site.part: _rising([(width, times[site.part, width] - shared) for width in levels[site.part]])
        for site in sites
    }


def _levels(site: Site) -> list[int]:
    """The widths to time, ascending."""
    near = (max(1, round(share * site.units / site.step)) * site.step for share in SHARES[:-1])
    return sorted({*(min(width, site.units) for width in near), site.units})


def _rising(pairs: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """The pairs, no width cheaper than a narrower one: differences below the clock's noise are none."""
    found: list[tuple[int, float]] = []
    for width, seconds in pairs:
        found.append((width, max(seconds, found[-1][1] if found else 0.0)))
    return found


def _narrow(anatomy: Anatomy, block: nn.Module, index: int, widths: dict[str, int]) -> nn.Module:
    """A copy of the block with the widths given by part, one unit elsewhere."""
    copy = deepcopy(block)
    for site in anatomy.sites_of_block(index):
        kept = torch.arange(widths.get(site.part, min(site.step, site.units)))
        cut(copy, site, kept, own_columns(copy, site, kept))
    return copy


def _seconds(stream: Stream, block: nn.Module, index: int) -> float:
    run = stream.fork()
    _wait(stream)
    started = perf_counter()
    advance(run, block, index)
    _wait(stream)
    return perf_counter() - started


def _wait(stream: Stream) -> None:
    if stream.hidden[0].is_cuda:
        torch.cuda.synchronize(stream.hidden[0].device)
