"""Entry + one block -> its sites, with every fact checked against the block's modules."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import nn

from statprune.anatomy.head_values import columns_read
from statprune.anatomy.parts import (
    DOWN,
    GATE_UP,
    Attention,
    Experts,
    FeedForward,
    Quantity,
    Stack,
    Unprunable,
)
from statprune.anatomy.producers import Carrier, Producer, Section, is_transposed, module_at, shape_of
from statprune.anatomy.sites import CROSS_HEADS, Site


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
            positions = _positions_scored(attention, block) * site.group * head_dim
            yield _with_costs(block, replace(site, names=names[part]), positions)
    if stack.experts is not None and has_experts(stack, block):
        shared = stack.shared_expert
        if shared is not None:
            site = _feed_forward(shared, block, f"{place.name}.shared_expert", place, config)
            site = replace(site, names={str(stack.widths.shared_expert): "neurons"}, normalised=False)
            yield _with_costs(block, site)
        yield replace(
            _experts(stack.experts, block, place, config), names={str(stack.widths.experts): "neurons"}
        )
        return
    forward = feed_forward_of(stack, block)
    if isinstance(forward, FeedForward):
        site = _feed_forward(forward, block, f"{place.name}.feed_forward", place, config)
        yield _with_costs(block, replace(site, names=names["feed_forward"]))


def has_experts(stack: Stack, block: nn.Module) -> bool:
    """Whether this block has experts; it must, where its stack has nothing else."""
    if stack.experts is None:
        return False
    return stack.feed_forward is None or hasattr(*_split(block, stack.experts.path))


def feed_forward_of(stack: Stack, block: nn.Module) -> FeedForward | Unprunable | None:
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
    value_dim = columns_read(module_at(block, attention.out), head_dim)
    heads = read // value_dim
    kv_heads = (
        rows[attention.key] // head_dim
        if attention.fused is None
        else (rows[attention.key] // head_dim - heads) // 2
    )
    asked = heads if attention.fused is None else heads + 2 * kv_heads
    if kv_heads <= 0 or heads % kv_heads or rows[attention.query] != asked * head_dim or read % value_dim:
        raise ValueError(
            f"{place.name}: {rows[attention.query]} rows of {attention.query} and {rows[attention.key]} of "
            f"{attention.key} are no heads of {head_dim} for the {read} columns that {attention.out} reads"
        )
    group = heads // kv_heads
    q, kv = group * head_dim, head_dim
    carrier = Carrier(attention.value, value_dim)
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
            Producer(attention.value, (Section(value_dim),), reads=source),
        )
    besides = [path for path in attention.besides if hasattr(*_split(block, path))]
    producers += tuple(Producer(path, (Section(q),), reads="positions") for path in besides)
    return Site(
        name=f"{place.name}.{part}",
        block=place.number,
        kind="attention",
        units=kv_heads,
        columns=group * value_dim,
        producers=producers,
        consumer=attention.out,
        residual=_present(block, attention.residual),
        carrier=carrier,
        group=group,
        head_dim=head_dim,
        value_dim=value_dim,
        follows=dict(attention.follows),
    )


def _feed_forward(forward: FeedForward, block: nn.Module, name: str, place: Place, config: Any) -> Site:
    residual, unless = forward.residual, forward.residual_unless
    if unless is not None and not getattr(config, unless[0]):
        residual = unless[1]
    units = shape_of(module_at(block, forward.down))[1]
    carrier = None
    if forward.gate is None:
        producers: tuple[Producer, ...] = (Producer(forward.up, (Section(1),)),)
        activated = Carrier(forward.up, 1)
    elif forward.fused:
        producers = (Producer(forward.up, (Section(1), Section(1, units))),)
        carrier, activated = Carrier(forward.up, 1, before=1), Carrier(forward.up, 1)
    else:
        producers = (Producer(forward.gate, (Section(1),)), Producer(forward.up, (Section(1),)))
        carrier, activated = Carrier(forward.up, 1), Carrier(forward.gate, 1)
    if forward.activation is not None:
        module_at(block, forward.activation)
    for producer in producers:
        made = shape_of(module_at(block, producer.path))[0]
        if made != units * producer.rows:
            raise ValueError(
                f"{place.name}: {producer.path} has {made} rows; {forward.down} reads {units} neurons"
            )
    return Site(
        name=name,
        block=place.number,
        kind="feed_forward",
        units=units,
        columns=1,
        producers=producers,
        consumer=forward.down,
        residual=_present(block, residual),
        carrier=carrier,
        activated=activated,
        activation=forward.activation,
    )


def _experts(experts: Experts, block: nn.Module, place: Place, config: Any) -> Site:
    module = module_at(block, experts.path)
    count, hidden, units = getattr(module, DOWN).shape
    made = tuple(getattr(module, GATE_UP).shape)
    if made != (count, 2 * units, hidden):
        raise ValueError(
            f"{place.name}: {GATE_UP} of {experts.path} is {made}; {DOWN} reads {units} neurons of {count} "
            f"experts and returns {hidden} values"
        )
    active = int(getattr(config, experts.active))
    return Site(
        name=f"{place.name}.experts",
        block=place.number,
        kind="feed_forward",
        units=units,
        columns=1,
        producers=(Producer(experts.path, (Section(1), Section(1, units))),),
        consumer=experts.path,
        residual=_present(block, experts.residual),
        follows=dict(experts.follows),
        experts=count,
        active=active,
        parameters_per_unit=3 * hidden * count,
        macs_per_unit=3 * hidden * active,
    )


def _present(block: nn.Module, paths: tuple[str, ...]) -> tuple[str, ...]:
    for path in paths:
        module_at(block, path)
    return paths


def _split(block: nn.Module, path: str) -> tuple[Any, str]:
    owner, _, name = path.rpartition(".")
    return module_at(block, owner), name


def _positions_scored(attention: Attention, block: nn.Module) -> int:
    """Relative positions that a token is scored against, over all kinds of such scores."""
    if not attention.scored or not hasattr(*_split(block, attention.scored[0])):
        return 0
    either_side, kinds = (getattr(*_split(block, path)) for path in attention.scored)
    return 2 * int(either_side) * len(kinds)


def _own_values(block: nn.Module, site: Site, consumer: Any) -> Any:
    """The value projection of `site`, where it is a weight by itself, and a Linear, as what reads heads."""
    if site.kind != "attention" or site.carrier is None or site.carrier.path == site.producers[0].path:
        return None
    values = module_at(block, site.carrier.path)
    return None if is_transposed(values) or is_transposed(consumer) else values


def _with_costs(block: nn.Module, site: Site, macs: int = 0) -> Site:
    parameters = 0
    for producer in site.producers:
        linear = module_at(block, producer.path)
        _, inputs = shape_of(linear)
        parameters += producer.rows * (inputs + (linear.bias is not None))
        macs += producer.rows * inputs if producer.reads != "positions" else 0
    consumer = module_at(block, site.consumer)
    outputs, _ = shape_of(consumer)
    values = _own_values(block, site, consumer)
    if values is not None:
        _, inputs = shape_of(values)
        site = replace(
            site,
            parameters_per_column=inputs + (values.bias is not None) + site.group * outputs,
            macs_per_column=inputs + site.group * outputs,
        )
    return replace(
        site,
        parameters_per_unit=parameters + site.columns * outputs,
        parameters_fixed=outputs if consumer.bias is not None else 0,
        macs_per_unit=macs + site.columns * outputs,
    )
