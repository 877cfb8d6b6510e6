"""What the experts of a block read: tokens, and for each the experts that the router has picked."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Routed(NamedTuple):
    """The real tokens of one batch in front of the experts of a block.

    `hidden` (tokens, width); `picked` (tokens, active) int64, the experts of each token; `weights` (tokens,
    active), with which their outputs are added.
    """

    hidden: Tensor
    picked: Tensor
    weights: Tensor

    def given_to(self, expert: int) -> tuple[Tensor, Tensor]:
        """The tokens that one expert is given, (rows,) int64, and its weight for each, (rows,)."""
        tokens, places = torch.where(self.picked == expert)
        return tokens, self.weights[tokens, places]


def read_by(inputs: tuple[Any, ...], real: Tensor, *, borrowed: bool = False) -> "Tensor | Routed":
    """What a module called with `inputs` reads of the real tokens, told by `real` (batch, length) bool.

    A copy; with `borrowed` the activations themselves where no token is padding.
    """
    given = [each for each in inputs if isinstance(each, Tensor)]
    routed = len(given) == 3 and given[1].dtype == torch.int64
    rows = [each.reshape(-1, each.shape[-1]) for each in (given if routed else given[:1])]
    if not (borrowed and bool(real.all())):
        rows = [each[real.reshape(-1)] for each in rows]
    return Routed(*rows) if routed else rows[0]


def hidden_of(read: "Tensor | Routed") -> Tensor:
    """The hidden states of what a module has read."""
    return read.hidden if isinstance(read, Routed) else read


def together(pieces: Sequence[Any]) -> Any:
    """What was read in pieces, tensors or `Routed`, as one."""
    if len(pieces) == 1:
        return pieces[0]
    if isinstance(pieces[0], Routed):
        return Routed(*(torch.cat(each) for each in zip(*pieces, strict=True)))
    return torch.cat(list(pieces))
