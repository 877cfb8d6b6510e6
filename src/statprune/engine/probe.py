"""Samples on their way through the dense model, and beside it through models of which one site is narrowed.

All of them pass a block together, so that every block is visited once, whatever is tried out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from transformers import PreTrainedModel

from statprune.anatomy.lookup import Anatomy
from statprune.anatomy.producers import module_at
from statprune.anatomy.ranks import pooled
from statprune.anatomy.sites import Site
from statprune.budget.damage import Floats
from statprune.calibration.batches import Batch
from statprune.calibration.stream import Stream, advance, before_first_block
from statprune.engine.divergence import Outputs
from statprune.surgery.linear import weight_of


@dataclass(frozen=True, eq=False)
class Candidates:
    """One site's errors, as in `DamageCurve`, and at a few widths what its consumer would become.

    `weights`: (width, the consumer's weight, as large as it is, the columns that are gone zero).
    """

    error: Floats
    weights: Sequence[tuple[int, Tensor]] = ()


class Probe:
    """What the outputs of a model are, and how far those of models tried out are from them.

    `stream` stands in front of some block, with everything before it dense. Several processes share the tries
    out, each with all samples.

    Memory: the samples' hidden states for each try of this process.
    """

    def __init__(self, model: PreTrainedModel, anatomy: Anatomy, batches: Sequence[Batch]) -> None:
        self._model, self._anatomy, self._batches = model, anatomy, batches
        self.stream = before_first_block(model, anatomy, batches)
        self._tries: dict[int, tuple[str, int, Stream]] = {}
        self._count = 0
        self._behind = 0

    def try_out(self, block: nn.Module, site: Site, width: int, weight: Tensor) -> None:
        """Send the samples through `block` with this weight of the site's consumer; then it is as it was."""
        self._count += 1
        if self._count % self._anatomy.ranks.size != self._anatomy.ranks.rank:
            return
        beside, own = self.stream.fork(), weight_of(module_at(block, site.consumer))
        before = own.clone()
        try:
            own.copy_(weight)
            advance(beside, block, site.block)
        finally:
            own.copy_(before)
        self._tries[self._count] = (site.name, width, beside)

    def advance(self, block: nn.Module, index: int) -> None:
        """Move all that stand in front of `block` through it; those that have tried it are behind."""
        for _, _, beside in list(self._tries.values())[: self._behind]:
            advance(beside, block, index)
        advance(self.stream, block, index)
        self._behind = len(self._tries)

    def divergences(self) -> tuple[dict[str, list[tuple[int, float]]], str]:
        """Behind the last block: of every site the (width, divergence) tried, and what it is measured in."""
        outputs = Outputs(self._model, self._anatomy, self._batches, self.stream.hidden)
        found: dict[str, list[tuple[int, float]]] = {}
        own = {
            number: (name, width, outputs.divergence(beside.hidden))
            for number, (name, width, beside) in self._tries.items()
        }
        for _, (name, width, divergence) in sorted(pooled(self._anatomy.ranks, own).items()):
            found.setdefault(name, []).append((width, divergence))
        return found, outputs.unit
