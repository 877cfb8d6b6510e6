"""Model -> its entry and its sites; an unknown model gets an error that holds a draft entry."""

from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from statprune.anatomy.decoders import DECODERS
from statprune.anatomy.draft import draft_entry
from statprune.anatomy.encoders import ENCODERS
from statprune.anatomy.parts import Architecture
from statprune.anatomy.sites import Site, module_at, shape_of, sites_of
from statprune.errors import ModelError, UnknownArchitectureError

ARCHITECTURES: tuple[Architecture, ...] = DECODERS + ENCODERS


@dataclass(frozen=True, eq=False)
class Anatomy:
    """A model's entry, its blocks in order, and all its sites: attention before feed-forward in each."""

    entry: Architecture
    blocks: nn.ModuleList
    sites: tuple[Site, ...]

    def sites_of_block(self, index: int) -> tuple[Site, ...]:
        """The sites of one block."""
        return tuple(site for site in self.sites if site.block == index)


def entry_for(model_type: str) -> Architecture | None:
    """The entry that lists this model type, or None."""
    return next((entry for entry in ARCHITECTURES if model_type in entry.model_types), None)


def head_dim_of(entry: Architecture, config: Any) -> int:
    """Columns per head: from the config where it says so, else hidden size / heads of the dense model."""
    named = getattr(config, entry.widths.head_dim, None) if entry.widths.head_dim else None
    return int(named or config.hidden_size // getattr(config, entry.widths.heads))


def context_of(entry: Architecture, config: Any) -> int:
    """The longest input, in tokens, that the model's positions allow."""
    return int(getattr(config, entry.context.name)) - entry.context.reserved


def anatomy_of(model: PreTrainedModel) -> Anatomy:
    """The sites of `model`, with every fact of its entry checked against its modules.

    Raises:
        UnknownArchitectureError: no entry lists the model's type; the message holds a draft entry.
        ModelError: the model is quantised, carries adapters, or differs from its entry.
    """
    config = model.config
    entry = entry_for(config.model_type)
    if entry is None:
        known = ", ".join(name for each in ARCHITECTURES for name in each.model_types)
        raise UnknownArchitectureError(
            f"model type '{config.model_type}' ({type(model).__name__}) has no entry; known are {known}. "
            f"A draft of its entry, to be checked and completed:\n{draft_entry(model)}"
        )
    _refuse_unusable(model, entry)
    try:
        blocks = module_at(model.base_model, entry.blocks)
        sites = tuple(
            site
            for index, block in enumerate(blocks)
            for site in sites_of(entry, block, index, _units(entry, config, block, index), config)
        )
    except AttributeError as error:
        raise ModelError(
            f"{type(model).__name__} differs from the entry for '{config.model_type}': {error}. "
            f"Adapters and custom layers must be merged or removed first."
        ) from error
    return Anatomy(entry, blocks, sites)


def _refuse_unusable(model: PreTrainedModel, entry: Architecture) -> None:
    config = model.config
    quantised = getattr(config, "quantization_config", None)
    if quantised is not None or getattr(model, "is_quantized", False):
        raise ModelError(
            f"{type(model).__name__} is quantised ({quantised or 'kind unknown'}): weights must be plain "
            f"numbers to be corrected. Prune the original checkpoint, then quantise."
        )
    if getattr(model, "peft_config", None):
        raise ModelError(f"{type(model).__name__} carries adapters. Merge them into the weights first.")
    for attribute, reason in entry.refuse.items():
        if getattr(config, attribute, False):
            value = getattr(config, attribute)
            raise ModelError(f"this '{config.model_type}' cannot be pruned: {reason} ({attribute}={value}).")


def _units(entry: Architecture, config: Any, block: nn.Module, index: int) -> dict[str, int]:
    attention, forward = entry.attention, entry.feed_forward
    paths = [attention.query, attention.key, attention.value, attention.out, forward.up, forward.down]
    for path in paths if forward.gate is None else [*paths, forward.gate]:
        _check_linear(module_at(block, path), f"blocks.{index}: {path}")
    rows = {path: shape_of(module_at(block, path))[0] for path in paths}
    head_dim = head_dim_of(entry, config)
    stacked = 3 if attention.fused else 1
    heads, kv_heads = rows[attention.query] // stacked // head_dim, rows[attention.key] // stacked // head_dim
    read = shape_of(module_at(block, attention.out))[1]
    if kv_heads == 0 or heads % kv_heads or heads * head_dim != read:
        raise ModelError(
            f"blocks.{index}: {heads} heads of {head_dim} columns in {kv_heads} groups do not make the "
            f"{read} columns that {attention.out} reads. The config does not describe these weights."
        )
    neurons = rows[forward.up]
    if neurons != shape_of(module_at(block, forward.down))[1]:
        raise ModelError(
            f"blocks.{index}: {forward.up} makes {neurons} neurons; {forward.down} reads others."
        )
    return {"heads": heads, "kv_heads": kv_heads, "head_dim": head_dim, "neurons": neurons}


def _check_linear(linear: Any, place: str) -> None:
    if type(linear) not in (nn.Linear, Conv1D):
        raise ModelError(
            f"{place} is a {type(linear).__name__}, not a plain Linear or Conv1D. "
            f"Dequantise it, or merge its adapter, first."
        )
