"""The vocabulary of an architecture entry.

An entry says, once and as data, where a family keeps what can be pruned; selection, surgery, cost model,
checkpoint and tests all read it. Paths are attribute paths: of `blocks` from the base model, of everything
else from one block.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["decoder", "encoder"]
SiteKind = Literal["attention", "feed_forward"]
Quantity = Literal["heads", "kv_heads", "head_columns", "neurons"]


@dataclass(frozen=True)
class Attention:
    """Self-attention: query, key and value produce what `out` reads.

    `fused` marks a query, key and value that share one weight, stacked in that order (all queries, then all
    keys, then all values); the three paths are then the same.

    `follows` names attributes that a block reads at run time and that must follow its head count.
    """

    query: str
    key: str
    value: str
    out: str
    fused: bool = False
    follows: Mapping[str, Quantity] = field(default_factory=dict)


@dataclass(frozen=True)
class FeedForward:
    """A two-layer perceptron, with a gate or without: `down` reads act(gate) * up, or act(up).

    `residual` is the module that reads the hidden state to which `down`'s output is added: the norm in front
    of the perceptron, or, where the norm comes behind, the perceptron's first part. (Attention's output is
    added to what the block reads.) `residual_unless` is for families that put the norm in front or behind: a
    config attribute, and the module where that attribute is false.
    """

    up: str
    down: str
    residual: str
    gate: str | None = None
    residual_unless: tuple[str, str] | None = None


@dataclass(frozen=True)
class Widths:
    """The names under which the family's config keeps its widths; None where it keeps none.

    `kv_heads` is None where every head has its own key and value; `head_dim` is None where the family's
    modelling code computes it as hidden size / heads, so that a config cannot say "fewer heads of the same
    size".
    """

    heads: str
    neurons: str
    kv_heads: str | None = None
    head_dim: str | None = None


@dataclass(frozen=True)
class Context:
    """Where the config keeps the longest input, and how many of those positions are not for tokens."""

    name: str = "max_position_embeddings"
    reserved: int = 0


@dataclass(frozen=True)
class Architecture:
    """One family of models.

    `reencode` maps a model type whose config refuses head counts that do not divide the hidden size to a
    model type with the same weights, names and arithmetic that accepts them.
    """

    model_types: tuple[str, ...]
    kind: Kind
    blocks: str
    attention: Attention
    feed_forward: FeedForward
    widths: Widths
    context: Context = Context()
    reencode: Mapping[str, str] = field(default_factory=dict)
    refuse: Mapping[str, str] = field(default_factory=dict)
    """Config attributes that, when true, make this entry wrong, each with the reason shown to the user."""
