"""Experts as a graph can say them: one after another, each over the tokens that picked it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from statprune.anatomy.lookup import Anatomy
from statprune.anatomy.parts import DOWN, GATE_UP


class EachExpert(nn.Module):
    """What a block's experts compute, without asking first which of them were picked at all.

    Stock transformers goes through the experts that the tokens at hand have picked, so that what it runs
    depends on them; here all are gone through, those that nobody picked with no tokens.
    """

    def __init__(self, experts: nn.Module) -> None:
        super().__init__()
        self.gate_up: Tensor = getattr(experts, GATE_UP)
        self.down: Tensor = getattr(experts, DOWN)
        self.act_fn: Any = experts.act_fn

    def forward(self, hidden: Tensor, picked: Tensor, weights: Tensor) -> Tensor:
        """Of tokens (tokens, width), the experts of each (tokens, active) and their weights, the same."""
        total = torch.zeros_like(hidden)
        for number in range(self.gate_up.shape[0]):
            tokens, places = torch.where(picked == number)
            gate, up = functional.linear(hidden[tokens], self.gate_up[number]).chunk(2, dim=-1)
            outputs = functional.linear(self.act_fn(gate) * up, self.down[number])
            total = total.index_add(0, tokens, outputs * weights[tokens, places, None])
        return total


@contextmanager
def each_in_turn(anatomy: Anatomy) -> Iterator[None]:
    """The model's experts as `EachExpert` for a while; nothing changes for models without."""
    found = [(anatomy.blocks[site.block], site.consumer) for site in anatomy.sites if site.experts]
    stock = [block.get_submodule(path) for block, path in found]
    try:
        for (block, path), experts in zip(found, stock, strict=True):
            block.set_submodule(path, EachExpert(experts))
        yield
    finally:
        for (block, path), experts in zip(found, stock, strict=True):
            block.set_submodule(path, experts)
