"""Whether pruned models of a kind can be saved and opened, tried out without weights, before any work."""

import torch
from torch import nn
from transformers import PreTrainedModel

from statprune.anatomy.head_values import narrow_head_values
from statprune.anatomy.lookup import anatomy_of
from statprune.anatomy.producers import module_at
from statprune.anatomy.sites import Site
from statprune.checkpoint.classes import class_named, stock_class_of
from statprune.checkpoint.widths import encode
from statprune.errors import ModelError
from statprune.surgery.cut import cut
from statprune.surgery.linear import keep_outputs, set_weight, weight_of


def _narrow_values(block: nn.Module, site: Site, units: int, value_dim: int) -> None:
    values, reader = (module_at(block, path) for path in (site.carrier.path, site.consumer))  # type: ignore[union-attr]
    keep_outputs(values, torch.arange(units * value_dim))
    set_weight(reader, weight_of(reader)[:, : units * site.group * value_dim])
    narrow_head_values(values, reader, site.head_dim, value_dim)


def rehearse(model: PreTrainedModel) -> None:
    """Cut a model of this config unevenly, write its config, and build the class that would open it.

    Raises:
        ModelError: what would be opened has other shapes than what was cut; names the first weight.
    """
    stock_class = stock_class_of(type(model))
    with torch.device("meta"):
        narrowed: PreTrainedModel = stock_class(type(model.config).from_dict(model.config.to_dict()))
        anatomy = anatomy_of(narrowed)
        blocks = anatomy.blocks
        for site in anatomy.sites:
            block = blocks[site.block]
            kept = torch.arange(max(1, site.units - 1 - site.block % 2))
            weight = weight_of(module_at(block, site.consumer))
            cut(block, site, kept, weight[:, site.columns_of(kept)])
            if site.values_apart and site.carrier is not None:
                _narrow_values(block, site, len(kept), max(1, site.head_dim // 2))
        try:
            encoding = encode(narrowed, anatomy_of(narrowed))
        except AttributeError as error:
            raise ModelError(f"{error}. The entry does not describe this model: check widths.") from error
        opener = class_named(encoding.architecture)
        if opener is None:
            raise ModelError(
                f"{encoding.architecture}, the class to open {stock_class.__name__} with, is none."
            )
        opened = opener(encoding.config)
    wanted, found = (
        {name: tuple(value.shape) for name, value in each.state_dict().items()} for each in (narrowed, opened)
    )
    for name, shape in wanted.items():
        if found.get(name) != shape:
            raise ModelError(
                f"{name} would be {shape} once cut, and {found.get(name)} once saved and opened. "
                f"The entry does not describe this model: check widths."
            )
