"""Heads narrowed from within lose nothing with all directions kept, nor without those that say nothing."""

import pytest
import torch
from torch import Tensor

from benchmarks.quality.within_heads import all_within, error, read, turned, values_within, whole_heads
from statprune.anatomy.lookup import anatomy_of
from statprune.anatomy.producers import module_at
from statprune.calibration.stream import before_first_block
from tests.tiny import tiny_batch, tiny_model


@torch.no_grad()
def first(family: str, rank: int | None = None) -> tuple:
    """A model's first attention, its samples, and what it reads; values of so many directions a head."""
    model = tiny_model(family)
    anatomy = anatomy_of(model)
    block, site = anatomy.blocks[0], anatomy.sites[0]
    if rank is not None:
        weight = module_at(block, site.carrier.path).weight
        for head in weight.split(site.head_dim):
            head[rank:] = torch.randn(site.head_dim - rank, rank) @ head[:rank]
    stream = before_first_block(model, anatomy, [tiny_batch(model, rows=80, length=24, seed=1)])
    X, Z = read(stream, block, site)
    return stream, block, site, X, Z, module_at(block, site.consumer).weight.double()


def test_directions_are_turned_within_each_head_and_the_first_matter_most() -> None:
    *_, site, _, Z, W = first("bert")
    new = turned(Z, W, site.head_dim)
    assert error(Z, W, new) < 1e-5
    for old, own in zip(Z.split(site.head_dim, 1), new.split(site.head_dim, 1), strict=True):
        assert float((old - own @ torch.linalg.lstsq(own, old).solution).abs().max()) < 1e-6
    width = site.head_dim

    def some(first: bool) -> Tensor:
        half = slice(0, width // 2) if first else slice(width // 2, width)
        return torch.cat([each[:, half] for each in new.split(width, 1)], dim=1)

    assert error(Z, W, some(first=True)) < error(Z, W, some(first=False))


def test_values_that_need_half_their_directions_lose_half_for_nothing() -> None:
    *_, site, _, Z, W = first("bert", rank=first("bert")[2].head_dim // 2)
    bias = Z.mean(0, keepdim=True)  # values' biases are one direction more
    assert values_within(Z - bias, W, site, 0.75) < 1e-6 < whole_heads(Z - bias, W, site, 0.75)


@torch.no_grad()
@pytest.mark.parametrize(("keep", "most"), [(1.0, 1e-5), (0.5, 1.0)])
def test_all_four_change_nothing_whole_and_the_model_never(keep: float, most: float) -> None:
    stream, block, site, X, Z, _ = first("bert")
    before = {name: value.clone() for name, value in block.state_dict().items()}
    lost = all_within(stream, block, site, X, Z, keep)
    assert lost < most
    assert (lost > 1e-4) == (keep < 1)
    assert all(torch.equal(value, before[name]) for name, value in block.state_dict().items())
