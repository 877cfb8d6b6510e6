"""What a batch of calibration data is: the model's own inputs, and which of its tokens are real."""

from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import PreTrainedModel

Batch = Mapping[str, Tensor]
"""The model's inputs by name, each with a row a sample."""

MASKS = ("attention_mask", "decoder_attention_mask")
"""Which tokens are real in the first stack, and in the second."""


def samples_in(batch: Batch) -> int:
    """Rows of a batch."""
    return len(next(iter(batch.values())))


def inputs_of(model: PreTrainedModel, batch: Batch) -> dict[str, Tensor]:
    """The batch on the model's device.

    Of an image or of sound no token is padding, and models take no mask for that; there it is left out.
    """
    device = next(model.parameters()).device
    return {
        name: value.to(device)
        for name, value in batch.items()
        if name != MASKS[0] or model.main_input_name == "input_ids"
    }


def real_of(batch: Batch, stack: int, hidden: Tensor) -> Tensor:
    """Which tokens of `hidden` (rows, length, width), in front of stack number `stack`, are real: bool."""
    mask = batch.get(MASKS[stack])
    if mask is None or mask.shape != hidden.shape[:2]:
        return torch.ones(hidden.shape[:2], dtype=torch.bool, device=hidden.device)
    return mask.to(hidden.device).bool()
