"""Weights whose outputs make units: which rows of them belong to which unit."""

from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from statprune.anatomy.parts import DOWN


def module_at(root: nn.Module, path: str) -> Any:
    """The attribute at a dotted `path` below `root`; `root` itself where it is empty."""
    return reduce(getattr, path.split("."), root) if path else root


def shape_of(linear: nn.Module) -> tuple[int, int]:
    """(outputs, inputs) of a Linear or of a transformers Conv1D, which stores its weight transposed."""
    rows, columns = cast(Tensor, linear.weight).shape
    return (columns, rows) if is_transposed(linear) else (rows, columns)


def returned_by(consumer: Any) -> int:
    """How many numbers a consumer returns for a token: one linear, or the experts of a block."""
    experts = getattr(consumer, DOWN, None)
    return int(experts.shape[1]) if isinstance(experts, Tensor) else shape_of(consumer)[0]


def is_transposed(linear: Any) -> bool:
    """Whether it is a transformers Conv1D, whose weight is (inputs, outputs)."""
    return hasattr(linear, "nf")


def spread(kept: Tensor, width: int) -> Tensor:
    """Indices, (len(kept) * width,) int64, of what the units `kept` (count,) int64 have `width` of each."""
    return (kept[:, None] * width + torch.arange(width, device=kept.device)).reshape(-1)


@dataclass(frozen=True)
class Section:
    """A part of a producer's weight in which unit u owns the rows offset + u * rows ... of its dense form."""

    rows: int
    offset: int = 0


@dataclass(frozen=True)
class Producer:
    """A weight whose outputs make the units, one section of it after the other.

    `reads` the hidden state that the site's first producer reads, or what an encoder returned, or positions.
    """

    path: str
    sections: tuple[Section, ...]
    reads: Literal["hidden", "encoded", "positions"] = "hidden"

    @property
    def rows(self) -> int:
        """Rows that one unit owns."""
        return sum(section.rows for section in self.sections)

    def rows_of(self, kept: Tensor) -> Tensor:
        """Row indices, (len(kept) * rows,) int64, of the units `kept` (count,) int64."""
        return torch.cat([spread(kept, section.rows) + section.offset for section in self.sections])


@dataclass(frozen=True)
class Carrier:
    """A producer that is refitted once units are chosen: values; up beside a gate; what an activation is of.

    The consumer's input is linear in the first two, the others given. Of a weight that it shares with others,
    `before` is how many rows for each unit lie in front of its own; in front of all of them, or, where they
    are `interleaved`, of each unit's.
    """

    path: str
    rows: int
    before: int = 0
    interleaved: bool = False

    def rows_of(self, units: int) -> Tensor:
        """Its rows, (units * rows,) int64, in the weight of a site that has `units` units now."""
        all_units = torch.arange(units)
        if self.interleaved:
            stride = self.before + self.rows
            return (all_units[:, None] * stride + self.before + torch.arange(self.rows)).reshape(-1)
        return spread(all_units, self.rows) + self.before * units
