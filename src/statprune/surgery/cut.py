"""Shrink one site of a block: producers, consumer, and the attributes that must follow."""

from torch import Tensor, nn

from statprune.anatomy.producers import module_at
from statprune.anatomy.sites import Site
from statprune.surgery.follow import follow
from statprune.surgery.linear import keep_outputs, set_weight


def cut(
    block: nn.Module,
    site: Site,
    kept: Tensor,  # (count,) int64, sorted units
    weight: Tensor,  # (out, count * site.columns) what the consumer becomes
) -> None:
    """Keep the units `kept` of `site` in place, and give its consumer `weight`.

    The consumer's bias, and everything else in the block, stays untouched.
    """
    for producer in site.producers:
        linear = module_at(block, producer.path)
        keep_outputs(linear, producer.rows_of(kept.to(linear.weight.device)))
    set_weight(module_at(block, site.consumer), weight)
    quantities = site.quantities(len(kept))
    for path, quantity in site.follows.items():
        follow(block, path, quantities[quantity])
