"""Entry + one block -> its sites: which rows of the producers make a unit, and which columns read it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, cast

import torch
from torch import Tensor, nn

from statprune.anatomy.parts import Architecture, Quantity, SiteKind


def module_at(root: nn.Module, path: str) -> Any:
    """The attribute at a dotted `path` below `root`."""
    return reduce(getattr, path.split("."), root)


def shape_of(linear: nn.Module) -> tuple[int, int]:
    """(outputs, inputs) of a Linear or of a transformers Conv1D, which stores its weight transposed."""
    rows, columns = cast(Tensor, linear.weight).shape
    return (rows, columns) if isinstance(linear, nn.Linear) else (columns, rows)


def spread(kept: Tensor, width: int) -> Tensor:
    """Indices, (len(kept) * width,) int64, of what the units `kept` (count,) int64 have `width` of each."""
    return (kept[:, None] * width + torch.arange(width, device=kept.device)).reshape(-1)


@dataclass(frozen=True)
class Producer:
    """A weight whose outputs make the units: unit u owns rows offset + u * rows ... in every offset."""

    path: str
    rows: int
    offsets: tuple[int, ...] = (0,)

    def rows_of(self, kept: Tensor) -> Tensor:
        """Row indices, (len(offsets) * len(kept) * rows,) int64, of the units `kept` (count,) int64."""
        within = spread(kept, self.rows)
        return torch.cat([within + offset for offset in self.offsets])


@dataclass(frozen=True)
class Carrier:
    """The producer that the consumer's input is linear in, the others given: values, or up beside a gate.

    A unit's rows lie together, the units one after the other, in part `part` of the weight: 0, or 2 where
    query, key and value are stacked.
    """

    path: str
    rows: int
    part: int = 0

    def rows_of(self, units: int) -> slice:
        """Its rows in the weight of a site that has `units` units now."""
        return slice(self.part * units * self.rows, (self.part + 1) * units * self.rows)


@dataclass(frozen=True)
class Site:
    """A place that can be narrowed: producers, one consumer, and the units between them.

    A unit is one neuron, or one key-value group with all its query heads. `columns` is how many columns
    of the consumer read one unit: 1, or query heads per group * head dimension.
    """

    name: str
    block: int
    kind: SiteKind
    units: int
    columns: int
    producers: tuple[Producer, ...]
    consumer: str
    residual: str | None = None
    """The module that reads what the consumer's output is added to; None: the block itself does."""
    carrier: Carrier | None = None
    """None: the consumer's input is not linear in any producer."""
    group: int = 1
    """Query heads per unit (attention)."""
    head_dim: int = 0
    """Columns per head (attention)."""
    parameters_per_unit: int = 0
    """Weights and biases of the producers' rows, and the consumer's columns, of one unit."""
    parameters_fixed: int = 0
    """The consumer's bias: there at any width."""
    macs_per_unit: int = 0
    """Multiply-accumulates per token in the projections of one unit, without the attention scores."""

    def columns_of(self, kept: Tensor) -> Tensor:
        """Columns of the consumer, (len(kept) * columns,) int64, that read the units `kept` (count,)."""
        return spread(kept, self.columns)

    def heads_of(self, kept: Tensor) -> Tensor:
        """Query heads, (len(kept) * group,) int64, of the units `kept` (count,)."""
        return spread(kept, self.group)

    def quantities(self, count: int) -> dict[Quantity, int]:
        """What the family's config and modules call the width of `count` units."""
        if self.kind == "feed_forward":
            return {"neurons": count}
        heads = count * self.group
        return {"heads": heads, "kv_heads": count, "head_columns": heads * self.head_dim}


def blocks_of(sites: Sequence[Site]) -> int:
    """The number of blocks that the sites belong to."""
    return 1 + max(site.block for site in sites)


def sites_of(
    entry: Architecture, block: nn.Module, index: int, units: dict[str, int], config: Any
) -> Iterator[Site]:
    """The attention and the feed-forward site of one block, in the order in which it runs them.

    Args:
        entry: the family.
        block: one block of the model.
        index: its position.
        units: what the config says of this block: `heads`, `kv_heads`, `head_dim` and `neurons`.
        config: the model's.

    Raises:
        AttributeError: a path of the entry does not exist in this block.
    """
    attention, head_dim = entry.attention, units["head_dim"]
    group = units["heads"] // units["kv_heads"]
    if attention.fused:
        stacked = units["heads"] * head_dim
        producers: tuple[Producer, ...] = (Producer(attention.query, head_dim, (0, stacked, 2 * stacked)),)
    else:
        producers = (
            Producer(attention.query, group * head_dim),
            Producer(attention.key, head_dim),
            Producer(attention.value, head_dim),
        )
    yield _with_costs(
        block,
        Site(
            name=f"blocks.{index}.attention",
            block=index,
            kind="attention",
            units=units["kv_heads"],
            columns=group * head_dim,
            producers=producers,
            consumer=attention.out,
            carrier=Carrier(attention.value, head_dim, 2 if attention.fused else 0),
            group=group,
            head_dim=head_dim,
        ),
    )
    forward = entry.feed_forward
    residual, unless = forward.residual, forward.residual_unless
    if unless is not None and not getattr(config, unless[0]):
        residual = unless[1]
    module_at(block, residual)
    paths = (forward.up,) if forward.gate is None else (forward.gate, forward.up)
    yield _with_costs(
        block,
        Site(
            name=f"blocks.{index}.feed_forward",
            block=index,
            kind="feed_forward",
            units=units["neurons"],
            columns=1,
            producers=tuple(Producer(path, 1) for path in paths),
            consumer=forward.down,
            residual=residual,
            carrier=None if forward.gate is None else Carrier(forward.up, 1),
        ),
    )


def _with_costs(block: nn.Module, site: Site) -> Site:
    parameters = macs = 0
    for producer in site.producers:
        linear = module_at(block, producer.path)
        _, inputs = shape_of(linear)
        rows = producer.rows * len(producer.offsets)
        parameters += rows * (inputs + (linear.bias is not None))
        macs += rows * inputs
    consumer = module_at(block, site.consumer)
    outputs, _ = shape_of(consumer)
    return replace(
        site,
        parameters_per_unit=parameters + site.columns * outputs,
        parameters_fixed=outputs if consumer.bias is not None else 0,
        macs_per_unit=macs + site.columns * outputs,
    )
