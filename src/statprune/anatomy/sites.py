"""A place that can be narrowed: which rows of the producers make a unit, and which columns read it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from statprune.anatomy.parts import BLOCK, DOWN, GATE_UP, Quantity, SiteKind
from statprune.anatomy.producers import Carrier, Producer, spread

CROSS_HEADS = "cross_attention_heads"
"""What this package calls the heads of cross-attention: configs have one number for both attentions."""


STEP = 8
"""Of experts' neurons: torch's grouped product refuses rows that are no multiple of 16 bytes."""


@dataclass(frozen=True)
class Site:
    """A place that can be narrowed: producers, one consumer, and the units between them.

    A unit is one neuron, or one key-value group with all its query heads, or one neuron of every expert.
    `columns` is how many columns of the consumer read one unit: 1, or query heads per group * head dimension.
    Producer and consumer of experts are one module, which holds the weights of all of them.
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
    normalised: bool = True
    """Whether a norm reads what that becomes: not of a shared expert, whose output a gate scales first."""
    carrier: Carrier | None = None
    """None: the consumer's input is not linear in any producer."""
    activated: Carrier | None = None
    """What goes through the activation (feed-forward): the gate, or up where there is none."""
    activation: str | None = None
    """Where the block keeps that activation; None where it is not known."""
    group: int = 1
    """Query heads per unit (attention)."""
    head_dim: int = 0
    """Columns per head (attention)."""
    value_dim: int = 0
    """Columns of a head's values: fewer than `head_dim` where they have been narrowed."""
    follows: dict[str, Quantity] = field(default_factory=dict, hash=False)
    """Attributes of the block that follow the width."""
    names: dict[str, Quantity] = field(default_factory=dict, hash=False)
    """What the config calls the width."""
    experts: int = 0
    """How many experts have this width, each with its own choice of units; 0 where there are none."""
    active: int = 0
    """How many of them a token goes to."""
    parameters_per_unit: int = 0
    """Weights and biases of the producers' rows, and the consumer's columns, of one unit."""
    parameters_fixed: int = 0
    """The consumer's bias: there at any width."""
    parameters_per_column: int = 0
    """What one unit has less of `parameters_per_unit` for every column that its values lack."""
    macs_per_column: int = 0
    """And of `macs_per_unit`."""
    macs_per_unit: int = 0
    """Multiply-accumulates per token of one unit, without the scores between tokens."""

    @property
    def part(self) -> str:
        """The part of its block, such as "attention" or "experts"."""
        return self.name.rpartition(".")[2]

    @property
    def values_apart(self) -> bool:
        """Whether values have a weight of their own, so that they can be narrower than keys."""
        return self.parameters_per_column > 0

    @property
    def weights(self) -> tuple[str, ...]:
        """The parameters of the block that the site narrows, without biases."""
        if self.experts:
            return (f"{self.consumer}.{GATE_UP}", f"{self.consumer}.{DOWN}")
        return tuple(f"{path}.weight" for path in (*(each.path for each in self.producers), self.consumer))

    @property
    def step(self) -> int:
        """Widths must be multiples of this, unless all units are kept."""
        return STEP if self.experts else 1

    @property
    def sparsity(self) -> float:
        """Tokens of the model for each that reaches one expert, if all are picked alike; 1 elsewhere."""
        return self.experts / self.active if self.experts else 1.0

    def allows(self, width: int) -> bool:
        """Whether the model still runs with this width."""
        return width == self.units or width % self.step == 0

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
