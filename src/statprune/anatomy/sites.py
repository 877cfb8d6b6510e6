"""Entry + one block -> its sites: which rows of the producers make a unit, and which columns read it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from torch import Tensor, nn

from statprune.anatomy.parts import BLOCK, Attention, FeedForward, Quantity, SiteKind, Stack, Unprunable
from statprune.anatomy.producers import Carrier, Producer, Section, module_at, shape_of, spread

CROSS_HEADS = "cross_attention_heads"
"""What this package calls the heads of cross-attention: configs have one number for both attentions."""


@dataclass(frozen=True)
class Site:
    """A place that can be narrowed: producers, one consumer, and the units between them.

    A unit is one neuron, or one key-value group with all its query heads. `columns` is how many columns
    of the consumer read one unit: 1, or query heads per group * head dimension.
    """

    name: str
    block: int
    """Counted over all stacks."""
    kind: SiteKind
    units: int
    columns: int
    producers: tuple[Producer, ...]
    consumer: str
    residual: tuple[str, ...] = (BLOCK,)
    """The modules whose inputs add up to what the consumer's output is added to; BLOCK: the block."""
    carrier: Carrier | None = None
    """None: the consumer's input is not linear in any producer."""
    group: int = 1
    """Query heads per unit (attention)."""
    head_dim: int = 0
    """Columns per head (attention)."""
    follows: dict[str, Quantity] = field(default_factory=dict, hash=False)
    """Attributes of the block that follow the width."""
    names: dict[str, Quantity] = field(default_factory=dict, hash=False)
    """What the config calls the width."""
    parameters_per_unit: int = 0
    """Weights and biases of the producers' rows, and the consumer's columns, of one unit."""
    parameters_fixed: int = 0
    """The consumer's bias: there at any width."""
    macs_per_unit: int = 0
    """Multiply-accumulates per token in the projections of one unit, without the attention scores."""

    @property
    def part(self) -> str:
        """The part of its block: "attention", "cross_attention" or "feed_forward"."""
        return self.name.rpartition(".")[2]

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


@dataclass(frozen=True)
class Place:
    """A block among all: its number over all stacks, and its name, as in "decoder.3"."""

    number: int
    name: str


def sites_of(stack: Stack, block: nn.Module, place: Place, head_dim: int, config: Any) -> Iterator[Site]:
    """The sites of one block, in the order in which it runs them.

    Args:
        stack: what the entry says of its kind.
        block: one block of the model.
        place: its position.
        head_dim: columns per head.
        config: the model's.

    Raises:
        AttributeError: a path of the entry does not exist in this block.
        ValueError: heads do not come out even.
    """
    names: dict[str, dict[str, Quantity]] = {
        "attention": {stack.widths.heads: "heads"},
        "cross_attention": {CROSS_HEADS: "heads"},
        "feed_forward": {stack.widths.neurons: "neurons"},
    }
    if stack.widths.kv_heads is not None:
        names["attention"][stack.widths.kv_heads] = "kv_heads"
    for part, attention in (("attention", stack.attention), ("cross_attention", stack.cross_attention)):
        if isinstance(attention, Attention):
            site = _attention(attention, block, part, place, head_dim)
            yield _with_costs(block, replace(site, names=names[part]))
    forward = feed_forward_of(stack, block)
    if isinstance(forward, FeedForward):
        yield _with_costs(
            block, replace(_feed_forward(forward, block, place, config), names=names["feed_forward"])
        )


def feed_forward_of(stack: Stack, block: nn.Module) -> FeedForward | Unprunable:
    """The alternative whose parts this block has; the last one, where it has those of none."""
    if not isinstance(stack.feed_forward, tuple):
        return stack.feed_forward
    found = stack.feed_forward[-1]
    for each in reversed(stack.feed_forward):
        try:
            module_at(block, each.up)
        except AttributeError:
            continue
        found = each
    return found


def _attention(attention: Attention, block: nn.Module, part: str, place: Place, head_dim: int) -> Site:
    rows = {path: shape_of(module_at(block, path))[0] for path in (attention.query, attention.key)}
    read = shape_of(module_at(block, attention.out))[1]
    heads = read // head_dim
    kv_heads = (
        rows[attention.key] // head_dim
        if attention.fused is None
        else (rows[attention.key] // head_dim - heads) // 2
    )
    asked = heads if attention.fused is None else heads + 2 * kv_heads
    if kv_heads <= 0 or heads % kv_heads or rows[attention.query] != asked * head_dim or read % head_dim:
        raise ValueError(
            f"{place.name}: {rows[attention.query]} rows of {attention.query} and {rows[attention.key]} of "
            f"{attention.key} are no heads of {head_dim} for the {read} columns that {attention.out} reads"
        )
    group = heads // kv_heads
    q, kv = group * head_dim, head_dim
    carrier = Carrier(attention.value, kv)
    if attention.fused == "concatenated":
        sections = (Section(q), Section(kv, heads * head_dim), Section(kv, (heads + kv_heads) * head_dim))
        producers: tuple[Producer, ...] = (Producer(attention.query, sections),)
        carrier = Carrier(attention.value, kv, q + kv)
    elif attention.fused == "interleaved":
        producers = (Producer(attention.query, (Section(3 * kv),)),)
        carrier = Carrier(attention.value, kv, 2 * kv, interleaved=True)
    else:
        source: Literal["hidden", "encoded"] = "encoded" if part == "cross_attention" else "hidden"
        producers = (
            Producer(attention.query, (Section(q),)),
            Producer(attention.key, (Section(kv),), reads=source),
            Producer(attention.value, (Section(kv),), reads=source),
        )
    besides = [path for path in attention.besides if hasattr(*_split(block, path))]
    producers += tuple(Producer(path, (Section(q),), reads="positions") for path in besides)
    return Site(
        name=f"{place.name}.{part}",
        block=place.number,
        kind="attention",
        units=kv_heads,
        columns=q,
        producers=producers,
        consumer=attention.out,
        residual=_present(block, attention.residual),
        carrier=carrier,
        group=group,
        head_dim=head_dim,
        follows=dict(attention.follows),
    )


def _feed_forward(forward: FeedForward, block: nn.Module, place: Place, config: Any) -> Site:
    residual, unless = forward.residual, forward.residual_unless
    if unless is not None and not getattr(config, unless[0]):
        residual = unless[1]
    units = shape_of(module_at(block, forward.down))[1]
    carrier = None
    if forward.gate is None:
        producers: tuple[Producer, ...] = (Producer(forward.up, (Section(1),)),)
    elif forward.fused:
        producers = (Producer(forward.up, (Section(1), Section(1, units))),)
        carrier = Carrier(forward.up, 1, before=1)
    else:
        producers = (Producer(forward.gate, (Section(1),)), Producer(forward.up, (Section(1),)))
        carrier = Carrier(forward.up, 1)
    for producer in producers:
        made = shape_of(module_at(block, producer.path))[0]
        if made != units * producer.rows:
            raise ValueError(
                f"{place.name}: {producer.path} has {made} rows; {forward.down} reads {units} neurons"
            )
    return Site(
        name=f"{place.name}.feed_forward",
        block=place.number,
        kind="feed_forward",
        units=units,
        columns=1,
        producers=producers,
        consumer=forward.down,
        residual=_present(block, residual),
        carrier=carrier,
    )


def _present(block: nn.Module, paths: tuple[str, ...]) -> tuple[str, ...]:
    for path in paths:
        module_at(block, path)
    return paths


def _split(block: nn.Module, path: str) -> tuple[Any, str]:
    owner, _, name = path.rpartition(".")
    return module_at(block, owner), name


def _with_costs(block: nn.Module, site: Site) -> Site:
    parameters = macs = 0
    for producer in site.producers:
        linear = module_at(block, producer.path)
        _, inputs = shape_of(linear)
        parameters += producer.rows * (inputs + (linear.bias is not None))
        macs += producer.rows * inputs if producer.reads != "positions" else 0
    consumer = module_at(block, site.consumer)
    outputs, _ = shape_of(consumer)
    return replace(
        site,
        parameters_per_unit=parameters + site.columns * outputs,
        parameters_fixed=outputs if consumer.bias is not None else 0,
        macs_per_unit=macs + site.columns * outputs,
    )
