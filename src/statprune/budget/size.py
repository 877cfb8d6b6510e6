"""How large a model is: all of it, embeddings and head too."""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Size:
    """Parameters of a model, each counted once however many modules share it, and their bytes."""

    parameters: int
    bytes: int


def size_of(model: nn.Module) -> Size:
    """The size of `model` in memory, or of what it would take there where its blocks lie on disk."""
    weights: Iterable[nn.Parameter] = list(model.parameters())
    return Size(sum(each.numel() for each in weights), sum(each.nbytes for each in weights))
