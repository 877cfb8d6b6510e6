"""Tiny models in folders, with widths that pruning can leave."""

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from statprune.anatomy.lookup import anatomy_of, entry_for
from statprune.checkpoint.classes import per_layer_class
from statprune.checkpoint.save import save
from tests.tiny import tiny_model

IDS = [(7 * place + 3) % 64 for place in range(24)]


def saved(folder: Path, model: PreTrainedModel, tokenizer: Any = None) -> Path:
    """`model` in `folder`, stock or per layer as its widths need."""
    save(model, anatomy_of(model), folder, source=None, tokenizer=tokenizer, record={})
    return folder


def saved_with(
    folder: Path, model_type: str, widths: Sequence[tuple[int, int, int]], **config: Any
) -> PreTrainedModel:
    """A random model of (heads, key-value heads, neurons) a block, zeros allowed, also in `folder`."""
    dense = tiny_model(model_type, **config)
    settings = deepcopy(dense.config)
    settings.head_dim = 8
    settings.allow_global_per_layer_attribute_access = True
    names = ("num_attention_heads", "num_key_value_heads", "intermediate_size")
    settings.per_layer_config = {
        index: dict(zip(names, given, strict=True)) for index, given in enumerate(widths)
    }
    model: PreTrainedModel = per_layer_class(type(dense), entry_for(model_type))(settings)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            centre = float(parameter.ndim == 1)
            parameter.copy_(centre + 0.2 * torch.randn(parameter.shape, generator=generator))
    model.eval().save_pretrained(folder)
    return model


def logits_of(model: PreTrainedModel) -> torch.Tensor:
    """Of every position, by transformers in fp64."""
    with torch.no_grad():
        return deepcopy(model).double()(torch.tensor([IDS])).logits[0]
