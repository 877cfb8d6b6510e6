"""Every entry's carriers: what the consumer reads is linear in them, and their rows are the units'."""

import pytest
import torch
from torch import Tensor, nn

from statprune.anatomy.lookup import anatomy_of
from statprune.anatomy.producers import module_at
from statprune.anatomy.sites import Site
from statprune.calibration.stream import before_first_block, until
from statprune.engine.carrier_fits import Perceptron
from statprune.engine.carriers import Observer, noted_at
from statprune.surgery.linear import weight_of
from tests.tiny import MODEL_TYPES, tiny_batch, tiny_model

OTHER_KERNELS = ("gemma2", "gpt_neo", "deberta-v2")
"""Their attention need not be torch's kernel: then nothing is known of it, and nothing noted."""


def read(model, block: nn.Module, site: Site, batch: dict[str, Tensor]) -> Tensor:
    stream = before_first_block(model, anatomy_of(model), [batch])
    return next(until(stream, block, 0, site.consumer))[site.consumer]


def padded(model) -> dict[str, Tensor]:
    batch = tiny_batch(model, rows=5, length=9, seed=4)
    if "input_ids" in batch:
        batch["attention_mask"][1:3, 6:] = 0
    return batch


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_an_entry_says_what_goes_through_which_activation(model_type: str) -> None:
    model = tiny_model(model_type)
    for site in anatomy_of(model).sites:
        if site.kind == "feed_forward" and not site.experts:
            assert noted_at(site) is not None, site.name


@torch.no_grad()
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_unit_alone_moves_with_its_rows(model_type: str) -> None:
    model = tiny_model(model_type)
    block, batch = anatomy_of(model).blocks[0], padded(model)
    for site in anatomy_of(model).sites_of_block(0):
        if site.carrier is None:
            continue
        linear = module_at(block, site.carrier.path)
        rows = site.carrier.rows_of(site.units)
        unit = rows[site.carrier.rows : 2 * site.carrier.rows]
        before = read(model, block, site, batch)
        weight_of(linear)[unit] *= 3
        if linear.bias is not None:
            linear.bias[unit] *= 3
        wanted = before.clone()
        wanted[:, site.columns_of(torch.tensor([1]))] *= 3
        torch.testing.assert_close(read(model, block, site, batch), wanted)


@torch.no_grad()
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_what_is_noted_reproduces_what_the_consumer_reads(model_type: str) -> None:
    model = tiny_model(model_type)
    anatomy, batches = anatomy_of(model), [padded(model), padded(model)]
    block, stream = anatomy.blocks[0], before_first_block(model, anatomy, batches)
    for site in anatomy.sites_of_block(0):
        if noted_at(site) is None:
            continue
        observer = Observer(block, site)
        with observer.watching():
            for number, seen in enumerate(until(stream, block, 0, site.consumer)):
                Z = seen[site.consumer]
                observer.take(Z, Z, stream.real[number], Z.new_ones(len(Z)))
        if site.kind == "attention" and model_type in OTHER_KERNELS and not observer.notes.read:
            continue
        if site.kind == "feed_forward":
            made = Perceptron(block, site, site.units, torch.cat(observer.notes.inputs)).read()
            torch.testing.assert_close(made, torch.cat(observer.notes.target), atol=1e-5, rtol=1e-4)
            continue
        kept = torch.arange(1, site.units)
        reading = observer.notes.reading(site, kept)
        linear = module_at(block, site.carrier.path)
        rows = site.carrier.rows_of(site.units)
        W = weight_of(linear)[rows][site.carrier.rows :]
        found = reading.products(W, slice(0, reading.rows))
        if linear.bias is not None:  # scores add up to one
            bias = linear.bias[rows][site.carrier.rows :].reshape(len(kept), 1, -1)
            found = found + bias.expand(-1, site.group, -1).reshape(-1)
        Z = torch.cat(observer.notes.read)[:, site.columns_of(kept)]
        torch.testing.assert_close(found, Z, atol=1e-5, rtol=1e-4)
