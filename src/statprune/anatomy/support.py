"""The table of what is supported, made from the entries."""

from dataclasses import asdict, dataclass
from typing import Any

from statprune.anatomy.lookup import architectures
from statprune.anatomy.parts import Architecture, Attention, Experts, FeedForward, Stack, Unprunable

_PARTS = (
    ("heads", "attention"),
    ("heads of cross-attention", "cross_attention"),
    ("neurons", "feed_forward"),
    ("neurons of experts", "experts"),
    ("neurons of the shared expert", "shared_expert"),
    ("router", "router"),
)


@dataclass(frozen=True)
class Support:
    """One entry: its model types, what can be pruned of them, what stays whole and why, and what loads where.

    `stock_heads` says what a stock config makes of the same fewer heads in every block.
    """

    model_types: tuple[str, ...]
    kind: str
    pruned: str
    stays: str
    stock_heads: str

    def to_json(self) -> dict[str, Any]:
        """JSON-able content."""
        return asdict(self)


def support() -> tuple[Support, ...]:
    """Of every entry, those registered included, in their order."""
    return tuple(_of(entry) for entry in architectures())


def as_markdown() -> str:
    """The table, as docs/models.md has it."""
    lines = [
        "| model types | kind | pruned | stays whole | the same fewer heads in every block |",
        "| --- | --- | --- | --- | --- |",
    ]
    for each in support():
        cells = (", ".join(each.model_types), each.kind, each.pruned, each.stays, each.stock_heads)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _of(entry: Architecture) -> Support:
    pruned: list[str] = []
    stays: dict[str, list[str]] = {}
    for stack in entry.stacks:
        prefix = "" if len(entry.stacks) == 1 else f"{stack.name}: "
        for what, part in _PARTS:
            for each in _alternatives(stack, part):
                if isinstance(each, Attention | FeedForward | Experts):
                    pruned.append(prefix + what)
                elif isinstance(each, Unprunable):
                    stays.setdefault(each.reason, []).append(prefix + what)
    kept = "; ".join(f"{', '.join(dict.fromkeys(parts))}: {reason}" for reason, parts in stays.items())
    refused = "; ".join(f"refused where {name} is set: {why}" for name, why in entry.refuse.items())
    return Support(
        entry.model_types,
        entry.kind,
        ", ".join(dict.fromkeys(pruned)) or "nothing",
        "; ".join(filter(None, (kept, refused))),
        _stock_heads(entry),
    )


def _alternatives(stack: Stack, part: str) -> tuple[Any, ...]:
    found = getattr(stack, part)
    return found if isinstance(found, tuple) else (found,)


def _stock_heads(entry: Architecture) -> str:
    if not any(isinstance(stack.attention, Attention) for stack in entry.stacks):
        return ""
    if any(stack.widths.head_dim is None for stack in entry.stacks):
        return "need this package or trust_remote_code"
    others = "".join(f"; {kind} as {other} where it must" for kind, other in entry.reencode.items())
    return f"load in stock transformers{others}"
