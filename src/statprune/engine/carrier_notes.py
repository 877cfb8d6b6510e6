"""What a site's carriers are fitted on, noted batch by batch (engine/carriers.py notes it)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from statprune.anatomy.sites import Site
from statprune.linalg.bilinear import Mixed

MOST = 2**29
"""Numbers that are noted for one site, at most; the samples behind are left out of its carrier's fit."""

KERNEL = torch.nn.functional.scaled_dot_product_attention


@dataclass(frozen=True, eq=False)
class Call:
    """What the attention kernel was called with, but for the values, and for which tokens.

    `hidden` (batch, length, width) is what the values are made of, `real` (batch, length) bool.
    """

    named: dict[str, Any]
    hidden: Tensor
    real: Tensor

    def mixed(self, heads: Tensor, units: Tensor) -> Tensor:
        """The scores of these heads times what values are made of, (heads, tokens, width), real tokens."""
        named = dict(self.named)
        query, key = named["query"], named["key"]
        named["query"] = query[:, heads]
        named["key"] = key[:, heads if key.shape[1] == query.shape[1] else units]
        mask = named.get("attn_mask")
        if mask is not None and mask.ndim == query.ndim and mask.shape[1] == query.shape[1]:
            named["attn_mask"] = mask[:, heads]
        named["value"] = self.hidden[:, None].expand(-1, named["key"].shape[1], -1, -1)
        found: Tensor = KERNEL(**named).transpose(0, 1)
        return found.flatten(1, 2) if bool(self.real.all()) else found[:, self.real]


@dataclass(eq=False)
class Notes:
    """What one site's carriers are fitted on, one entry a batch, real tokens only.

    `target` (tokens, outputs) is what the consumer should return, `row_weights` (tokens,) how much each token
    counts; `inputs` (tokens, width) what a perceptron reads; of attention `read` (tokens, columns), what the
    consumer reads, and the `calls` of the kernel.
    """

    target: list[Tensor] = field(default_factory=list)
    dtype: torch.dtype = torch.float32
    row_weights: list[Tensor] = field(default_factory=list)
    inputs: list[Tensor] = field(default_factory=list)
    read: list[Tensor] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    numbers: int = 0

    @property
    def full(self) -> bool:
        """Whether no more is noted."""
        return self.numbers >= MOST

    def reading(self, site: Site, kept: Tensor) -> Mixed:
        """Of the heads of the units `kept` (count,)."""
        heads = site.heads_of(kept)
        mixed = [call.mixed(heads, kept).to(self.dtype) for call in self.calls]
        return Mixed(torch.cat(mixed, dim=1), site.group)

    def part(self, site: Site, kept: Tensor) -> "Part | None":
        """All that a fit of the units `kept` (count,) takes; uses the notes up. None if nothing was noted."""
        if not self.target:
            return None
        target, row_weights = _together(self.target), _together(self.row_weights)
        if site.kind == "feed_forward":
            return Part(_together(self.inputs), target, row_weights)
        read = [each[:, site.columns_of(kept)] for each in self.read]
        self.read.clear()
        return Part(self.reading(site, kept).F, target, row_weights, _together(read))


def _together(noted: list[Tensor]) -> Tensor:
    """All rows, and the list is empty: the two would lie in memory side by side."""
    found = torch.cat(noted)
    noted.clear()
    return found


@dataclass(frozen=True, eq=False)
class Part:
    """What carriers are fitted on.

    `inputs` is what a perceptron reads, (rows, width), or what the heads mix, (heads, rows, width); `target`
    (rows, outputs) what the consumer should return, `row_weights` (rows,) how much each row counts, `read`
    (rows, columns) what it reads of heads.
    """

    inputs: Tensor
    target: Tensor
    row_weights: Tensor
    read: Tensor | None = None

    @staticmethod
    def joined(parts: "Sequence[Part]") -> "Part":
        """All of their rows, in order."""
        if len(parts) == 1:
            return parts[0]
        inputs = torch.cat([part.inputs for part in parts], dim=parts[0].inputs.ndim - 2)
        read = [part.read for part in parts if part.read is not None]
        return Part(
            inputs,
            torch.cat([part.target for part in parts]),
            torch.cat([part.row_weights for part in parts]),
            torch.cat(read) if read else None,
        )
