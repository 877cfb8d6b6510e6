"""The vocabulary of an architecture entry.

An entry says, once and as data, where a family keeps what can be pruned; selection, surgery, cost model,
checkpoint and tests all read it. Paths are attribute paths: of `blocks` from the base model, of everything
else from one block.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["decoder", "encoder", "encoder-decoder"]
SiteKind = Literal["attention", "feed_forward"]
Quantity = Literal["heads", "kv_heads", "head_columns", "neurons"]
Order = Literal["concatenated", "interleaved"]

BLOCK = ""
"""As a residual: what the block itself reads."""


@dataclass(frozen=True)
class Attention:
    """Query, key and value produce what `out` reads.

    `fused` is for a query, key and value that share one weight, the three paths being the same:
    "concatenated" stacks all queries, then all keys, then all values; "interleaved" the query, key and value
    of one head, then those of the next.

    `besides` names further producers that have rows for every head, where the block has them.

    `scored` is for blocks that score tokens against relative positions too: two attributes, how many there
    are on either side, and a list with one item for each kind of such scores.

    `follows` names attributes that a block reads at run time and that must follow its head count. One of a
    config that blocks share becomes the block's own.

    `residual` names the modules whose inputs add up to the hidden state to which `out`'s output is added
    (`BLOCK`: what the block reads); none where a norm lies between, so that outputs do not add up.
    """

    query: str
    key: str
    value: str
    out: str
    fused: Order | None = None
    besides: tuple[str, ...] = ()
    scored: tuple[str, ...] = ()
    follows: Mapping[str, Quantity] = field(default_factory=dict)
    residual: tuple[str, ...] = (BLOCK,)


@dataclass(frozen=True)
class FeedForward:
    """A two-layer perceptron, with a gate or without: `down` reads act(gate) * up, or act(up).

    Where `gate` and `up` are the same path, that weight holds the gate's rows, then up's. `activation` is
    where the block keeps act, which works on every number by itself; where it is None, gate and up are not
    refitted.

    `residual` as in `Attention`: the norm in front of the perceptron, or, where the norm comes behind, the
    perceptron's first part. `residual_unless` is for families that do it in two ways: a config attribute, and
    the modules where that attribute is false.
    """

    up: str
    down: str
    residual: tuple[str, ...]
    gate: str | None = None
    activation: str | None = None
    residual_unless: tuple[str, tuple[str, ...]] | None = None

    @property
    def fused(self) -> bool:
        """Whether gate and up are one weight."""
        return self.gate == self.up


@dataclass(frozen=True)
class Experts:
    """Gated perceptrons, of which a router picks a few for each token, as one module at `path`.

    It holds `GATE_UP`, (experts, 2 * neurons, hidden), each expert's gate's rows and then up's, and `DOWN`,
    (experts, hidden, neurons); it is called with the tokens, the experts picked, and their weights. `active`
    is what the config calls the number of experts a token. `residual` as in `Attention`.
    """

    path: str
    residual: tuple[str, ...]
    active: str = "num_experts_per_tok"
    follows: Mapping[str, Quantity] = field(default_factory=dict)


GATE_UP, DOWN = "gate_up_proj", "down_proj"
"""What transformers calls the weights of all experts of a block."""


@dataclass(frozen=True)
class Unprunable:
    """A part that stays whole, and the reason that the user is shown."""

    reason: str


@dataclass(frozen=True)
class Widths:
    """The names under which the family's config keeps its widths; None where it keeps none.

    `kv_heads` is None where every head has its own key and value; `head_dim` is None where the family's
    modelling code computes it as hidden size / heads, so that a config cannot say "fewer heads of the same
    size". `experts` and `shared_expert` are the neurons of one expert, and of the one that all tokens go to.
    """

    heads: str
    neurons: str
    kv_heads: str | None = None
    head_dim: str | None = None
    experts: str | None = None
    shared_expert: str | None = None


@dataclass(frozen=True)
class Stack:
    """Blocks of one kind, one after the other.

    `name` begins the names of their sites. `extras` is how many values a block returns behind its hidden
    state, in a tuple; 0 where it returns the hidden state alone. `carried` says that the first block's extras
    are arguments of the blocks behind it. Several `feed_forward` are alternatives: the first one whose parts
    the block has is meant. A block that has `experts` has them instead, and maybe a `shared_expert` beside
    them; `router` is why what picks them stays whole.
    """

    blocks: str
    widths: Widths
    attention: Attention | Unprunable
    feed_forward: FeedForward | Unprunable | tuple[FeedForward, ...] | None
    cross_attention: Attention | Unprunable | None = None
    name: str = "blocks"
    extras: int = 0
    carried: bool = False
    experts: Experts | None = None
    shared_expert: FeedForward | None = None
    router: Unprunable | None = None


@dataclass(frozen=True)
class Context:
    """Where the config keeps the longest input, and how many of those positions are not for tokens.

    `name` is None where positions have no limit.
    """

    name: str | None = "max_position_embeddings"
    reserved: int = 0


@dataclass(frozen=True)
class Architecture:
    """One family of models.

    `stacks` are in the order in which they run; a later one reads the earlier ones' outputs.

    `reencode` maps a model type whose config refuses head counts that do not divide the hidden size to a
    model type with the same weights, names and arithmetic that accepts them.
    """

    model_types: tuple[str, ...]
    kind: Kind
    stacks: tuple[Stack, ...]
    context: Context = Context()
    reencode: Mapping[str, str] = field(default_factory=dict)
    refuse: Mapping[str, str] = field(default_factory=dict)
    """Config attributes that, when true, make this entry wrong, each with the reason shown to the user."""
