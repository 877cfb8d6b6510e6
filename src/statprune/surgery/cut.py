"""Shrink one site of a block: producers, consumer, and the attributes that must follow."""

from torch import Tensor, nn

from statprune.anatomy.producers import module_at
from statprune.anatomy.sites import Site
from statprune.surgery.experts import keep_neurons
from statprune.surgery.follow import follow
from statprune.surgery.linear import keep_outputs, set_weight, weight_of


def cut(
    block: nn.Module,
    site: Site,
    kept: Tensor,  # (count,) int64, sorted units; of experts (experts, count), or the same for all
    weight: Tensor,  # (out, count * site.columns) what the consumer becomes; (experts, out, count) of experts
) -> None:
    """Keep the units `kept` of `site` in place, and give its consumer `weight`.

    The consumer's bias, and everything else in the block, stays untouched.
    """
    if site.experts:
        keep_neurons(module_at(block, site.consumer), _of_experts(site, kept), weight)
    else:
        for producer in site.producers:
            linear = module_at(block, producer.path)
            keep_outputs(linear, producer.rows_of(kept.to(linear.weight.device)))
        set_weight(module_at(block, site.consumer), weight)
    quantities = site.quantities(kept.shape[-1])
    for path, quantity in site.follows.items():
        follow(block, path, quantities[quantity])


def own_columns(block: nn.Module, site: Site, kept: Tensor) -> Tensor:
    """The consumer's own columns of the units `kept`, as `cut` takes both."""
    weight = weight_of(module_at(block, site.consumer))
    if not site.experts:
        return weight[:, site.columns_of(kept).to(weight.device)].clone()
    columns = _of_experts(site, kept).to(weight.device)
    return weight.gather(2, columns[:, None].expand(-1, weight.shape[1], -1))


def _of_experts(site: Site, kept: Tensor) -> Tensor:
    return kept.expand(site.experts, -1) if kept.ndim == 1 else kept
