"""Samples on their way through the dense model, and beside it through models of which one site is narrowed.

All of them pass a block together, so that every block is visited once, whatever is tried out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from statprune.anatomy.lookup import Anatomy
from statprune.budget.damage import DamageCurve, Floats
from statprune.calibration.batches import Batch
from statprune.calibration.stream import Stream, advance, before_first_block
from statprune.engine.divergence import Outputs


@dataclass(frozen=True, eq=False)
class Tried:
    """One site's errors, as in `DamageCurve`, and the (width, number of the try) at a few widths."""

    error: Floats
    tries: Sequence[tuple[int, int]] = ()

    def curve(self, divergences: Sequence[float]) -> DamageCurve:
        """The damage curve, once every try's divergence is known."""
        return DamageCurve(self.error, [(width, divergences[number]) for width, number in self.tries])


class Probe:
    """What the outputs of a model are, and how far those of models tried out are from them.

    `stream` stands in front of some block, with everything before it dense.

    Memory: the samples' hidden states for each try.
    """

    def __init__(self, model: PreTrainedModel, anatomy: Anatomy, batches: Sequence[Batch]) -> None:
        self._model, self._anatomy, self._batches = model, anatomy, batches
        self.stream = before_first_block(model, anatomy, batches)
        self._tries: list[Stream] = []
        self._behind = 0

    def tried(self, block: nn.Module, index: int) -> int:
        """Send the samples through `block`, number `index`, as it is now; the number of this try."""
        beside = self.stream.fork()
        advance(beside, block, index)
        self._tries.append(beside)
        return len(self._tries) - 1

    def advance(self, block: nn.Module, index: int) -> None:
        """Move all that stand in front of `block` through it; those that have tried it are behind."""
        for stream in (*self._tries[: self._behind], self.stream):
            advance(stream, block, index)
        self._behind = len(self._tries)

    def divergences(self) -> tuple[list[float], str]:
        """Behind the last block: of every try, in order, and what they are measured in."""
        outputs = Outputs(self._model, self._anatomy, self._batches, self.stream.hidden)
        return [outputs.divergence(each.hidden) for each in self._tries], outputs.unit
