"""Random inputs of any size for a model, and how many tokens each of its stacks makes of them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from statprune.evaluation.devices import evaluating, place_of, takes, text_config

READS = {"pixel_values": "images", "input_features": "sound"}
"""The main inputs, besides token ids, that can be drawn; their sizes are the model's own."""


def random_inputs(model: nn.Module, rows: int, seq_len: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Inputs for one forward pass, without padding, on the model's device.

    An encoder with a decoder gets as many tokens for the one as for the other; images and sound have the
    size that the model's config says, whatever `seq_len` is.

    Args:
        model: Of token ids, images or sound.
        rows: Of the batch.
        seq_len: Tokens in a row.
        generator: Draws them, on its own device.
    """
    config: Any = model.config
    device, dtype = place_of(model)
    main = str(getattr(model, "main_input_name", "input_ids"))
    words = text_config(model, "vocab_size") or 1
    ids = torch.randint(words, (rows, seq_len), generator=generator, device=generator.device)
    inputs: dict[str, Tensor] = {}
    if main == "input_ids":
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if "MultipleChoice" in type(model).__name__:
            inputs = {name: value[:, None] for name, value in inputs.items()}
    else:
        shape = _shape_of_content(config, main)
        inputs[main] = torch.randn((rows, *shape), generator=generator, device=generator.device).to(dtype)
    if config.is_encoder_decoder:
        inputs["decoder_input_ids"] = ids.flip(1)
    return {name: value.to(device) for name, value in inputs.items() if takes(model, name)}


def _shape_of_content(config: Any, main: str) -> tuple[int, ...]:
    if main == "input_features":
        return (int(config.num_mel_bins), 2 * int(config.max_source_positions))
    size = config.image_size if isinstance(config.image_size, int) else max(config.image_size)
    return (int(config.num_channels), int(size), int(size))


def lengths_of(model: nn.Module, blocks: Sequence[nn.Module], inputs: dict[str, Tensor]) -> list[int]:
    """Tokens in a row that each of `blocks` of `model` returns in a forward pass over `inputs`."""
    seen: list[int] = []

    def note(module: nn.Module, arguments: Any, output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        seen.append(int(hidden.shape[-2]))

    hooks = [block.register_forward_hook(note) for block in blocks]
    try:
        with evaluating(model):
            model(**inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return seen
