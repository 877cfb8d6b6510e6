"""Random plans for a model, the units that they keep, and the model that they must equal."""

from collections.abc import Mapping, Sequence
from random import Random

import torch
from transformers import PreTrainedModel

from statprune.anatomy.lookup import anatomy_of
from statprune.anatomy.producers import module_at
from statprune.anatomy.sites import Site
from statprune.surgery.linear import set_weight, weight_of
from tests.tiny import kept_of


def random_kept(sites: Sequence[Site], seed: int) -> dict[str, list[int]]:
    """Units to keep of some of the sites: any legal number, the least and the most often, anywhere."""
    draw, kept = Random(seed), {}
    for site in sites:
        legal = [width for width in range(1, site.units + 1) if site.allows(width)]
        width = draw.choice([legal[0], legal[-1], draw.choice(legal), draw.choice(legal)])
        if width < site.units or draw.random() < 0.5:  # at full width it is cut, too, or left alone
            kept[site.name] = sorted(draw.sample(range(site.units), width))
    return kept


@torch.no_grad()
def masked(model: PreTrainedModel, kept: Mapping[str, Sequence[int]]) -> PreTrainedModel:
    """`model`, in place, with nothing read of the units that are not among `kept` of the sites named."""
    anatomy = anatomy_of(model)
    for site in anatomy.sites:
        if site.name not in kept:
            continue
        consumer, units = module_at(anatomy.blocks[site.block], site.consumer), kept_of(site, kept[site.name])
        if site.experts:
            mask = torch.zeros(site.experts, 1, site.units, dtype=weight_of(consumer).dtype)
            weight_of(consumer).mul_(mask.scatter(2, units[:, None], 1.0))
        else:
            mask = torch.zeros(site.units * site.columns, dtype=weight_of(consumer).dtype)
            mask[site.columns_of(units)] = 1
            set_weight(consumer, weight_of(consumer) * mask)
    return model
