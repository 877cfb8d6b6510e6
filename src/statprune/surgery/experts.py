"""The weights of all experts of a block: one tensor for what makes their neurons, one for what reads them."""

from typing import Any

import torch
from torch import Tensor, nn

from statprune.anatomy.parts import DOWN, GATE_UP
from statprune.surgery.linear import held_by


def neurons(experts: Any, expert: int, x: Tensor) -> Tensor:
    """What the neurons of one expert are, (rows, units), where it reads `x` (rows, hidden)."""
    gate, up = nn.functional.linear(x, getattr(experts, GATE_UP)[expert].detach()).chunk(2, dim=-1)
    found: Tensor = experts.act_fn(gate) * up
    return found


def sizes(experts: Any) -> Tensor:
    """How large the weights of each neuron are, (experts, units): the product of the norms of its three."""
    gate, up = getattr(experts, GATE_UP).detach().double().norm(dim=2).chunk(2, dim=1)
    found: Tensor = gate * up * getattr(experts, DOWN).detach().double().norm(dim=1)
    return found


def adapt_producers(experts: Any, M: Tensor) -> None:
    """Let gates and ups of all experts read x (1 + M) where they have read x; M (hidden, hidden)."""
    W = getattr(experts, GATE_UP).detach().double()
    _set(experts, GATE_UP, W + W @ M.T)


def keep_neurons(experts: Any, kept: Tensor, weight: Tensor) -> None:
    """Keep the neurons `kept` (experts, count) int64; `weight` (experts, hidden, count) then reads them."""
    packed = getattr(experts, GATE_UP).detach()
    units = packed.shape[1] // 2
    rows = torch.cat([kept, kept + units], dim=1).to(packed.device)
    _set(experts, GATE_UP, packed.gather(1, rows[:, :, None].expand(-1, -1, packed.shape[2])))
    _set(experts, DOWN, weight)


def _set(experts: Any, name: str, weight: Tensor) -> None:
    old = getattr(experts, name)
    held = held_by(old, weight).contiguous()
    setattr(experts, name, nn.Parameter(held, requires_grad=old.requires_grad))
