"""Take rows or columns of a Linear or of a transformers Conv1D, bias included, in place."""

from typing import Any

import torch
from torch import Tensor, nn

from statprune.anatomy.parts import DOWN
from statprune.anatomy.producers import is_transposed
from statprune.errors import NonFiniteError


def weight_of(linear: Any) -> Tensor:
    """The weight as (outputs, inputs); a view of the module's own storage.

    Of experts: (experts, outputs, inputs) of what reads their neurons.
    """
    if not hasattr(linear, "weight"):
        packed: Tensor = getattr(linear, DOWN).detach()
        return packed
    weight: Tensor = linear.weight.detach()
    return weight.T if is_transposed(linear) else weight


def held_by(old: Tensor, new: Tensor) -> Tensor:
    """`new` in the dtype of `old`, which it replaces.

    Raises:
        NonFiniteError: an entry is NaN or infinite in that dtype.
    """
    cast = new.detach().to(old.dtype)
    if cast.is_meta or bool(torch.isfinite(cast.sum())) or bool(torch.isfinite(cast).all()):
        return cast
    raise NonFiniteError(
        f"{int((~torch.isfinite(cast)).sum())} of {cast.numel()} new weights are NaN or infinite in "
        f"{cast.dtype}, which holds numbers up to {torch.finfo(cast.dtype).max:.1e}; they reach "
        f"{float(new.detach().abs().max()):.1e}. Try --dtype bfloat16 or float32."
    )


def set_weight(linear: Any, weight: Tensor) -> None:
    """Give `linear` the weight (outputs, inputs), cast to its dtype; its declared sizes follow.

    Raises:
        NonFiniteError: its dtype does not hold an entry.
    """
    outputs, inputs = weight.shape
    stored = weight.T if is_transposed(linear) else weight
    old = linear.weight
    linear.weight = nn.Parameter(held_by(old, stored).contiguous(), requires_grad=old.requires_grad)
    if is_transposed(linear):
        linear.nx, linear.nf = inputs, outputs
    else:
        linear.in_features, linear.out_features = inputs, outputs


def add_to_bias(linear: Any, shift: Tensor) -> None:
    """Add `shift` (outputs,) to the bias of `linear`.

    Raises:
        NonFiniteError: its dtype does not hold an entry.
    """
    bias = linear.bias
    linear.bias = nn.Parameter(held_by(bias, bias + shift), requires_grad=bias.requires_grad)


def keep_outputs(linear: Any, rows: Tensor) -> None:
    """Keep only the outputs `rows` (count,) int64, and their biases."""
    set_weight(linear, weight_of(linear)[rows])
    if linear.bias is not None:
        bias = linear.bias
        linear.bias = nn.Parameter(bias.detach()[rows].clone(), requires_grad=bias.requires_grad)
