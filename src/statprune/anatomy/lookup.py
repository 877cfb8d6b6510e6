"""Model -> its entry and its sites; an unknown model gets an error that holds a draft entry."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from statprune.anatomy.block_sites import Place, feed_forward_of, sites_of
from statprune.anatomy.decoders import DECODERS
from statprune.anatomy.draft import draft_entry
from statprune.anatomy.encoder_decoders import ENCODER_DECODERS
from statprune.anatomy.encoders import ENCODERS
from statprune.anatomy.entry_file import read_entry
from statprune.anatomy.head_values import NarrowReader, NarrowValues
from statprune.anatomy.parts import DOWN, GATE_UP, Architecture, Context, Stack, Unprunable
from statprune.anatomy.producers import module_at, returned_by
from statprune.anatomy.ranks import ALONE, Ranks
from statprune.anatomy.shelf import IN_MEMORY, Shelf
from statprune.anatomy.sites import Site
from statprune.errors import ModelError, UnknownArchitectureError

ARCHITECTURES: tuple[Architecture, ...] = DECODERS + ENCODERS + ENCODER_DECODERS

_registered: list[Architecture] = []


def register(entry: Architecture | str | Path) -> Architecture:
    """Add an entry of your own, or the one in a TOML file, for as long as this process runs.

    Every model of its types is checked against it before the data is read. A folder of such a model loads
    where the entry is registered, or with `trust_remote_code=True`.

    Raises:
        ModelError: the file is no entry, or one of its types has another entry.
    """
    made = entry if isinstance(entry, Architecture) else read_entry(entry)
    if not made.model_types:
        raise ModelError("the entry names no model type. Fill in model_types.")
    for name in made.model_types:
        known = entry_for(name)
        if known is not None and known != made:
            raise ModelError(f"'{name}' has an entry already. Give it another model type, or use that one.")
    if made not in _registered and made not in ARCHITECTURES:
        _registered.append(made)
    return made


def is_own(entry: Architecture) -> bool:
    """Whether `entry` came from the user."""
    return entry not in ARCHITECTURES


def architectures() -> tuple[Architecture, ...]:
    """All entries: this package's, then those registered."""
    return (*ARCHITECTURES, *_registered)


@dataclass(frozen=True, eq=False)
class Run:
    """A stack of a model: its blocks, in order, the first of which is number `start` over all stacks."""

    stack: Stack
    blocks: nn.ModuleList
    start: int

    @property
    def end(self) -> int:
        """The number behind its last block's."""
        return self.start + len(self.blocks)


@dataclass(frozen=True, eq=False)
class Anatomy:
    """A model's entry, its stacks, and all its sites: in each block in the order in which it runs them.

    `shelf` says where the blocks lie, `ranks` which processes share the run.
    """

    entry: Architecture
    runs: tuple[Run, ...]
    sites: tuple[Site, ...]
    shelf: Shelf = IN_MEMORY
    ranks: Ranks = ALONE

    def visited(self, end: int | None = None) -> Iterator[tuple[int, nn.Module]]:
        """The blocks in front of number `end`, each with its weights at hand for a while."""
        for index, block in enumerate(self.blocks[:end]):
            with self.shelf.taken(index):
                yield index, block

    @property
    def blocks(self) -> tuple[nn.Module, ...]:
        """The blocks of all stacks, in the order in which they run."""
        return tuple(block for run in self.runs for block in run.blocks)

    @property
    def hidden_size(self) -> int:
        """Numbers of a hidden state, as the first site's consumer returns it."""
        site = self.sites[0]
        return returned_by(module_at(self.blocks[site.block], site.consumer))

    def stack_of(self, site: Site) -> Stack:
        """The stack that the site's block is in."""
        return next(run.stack for run in self.runs if run.start <= site.block < run.end)

    def sites_of_block(self, index: int) -> tuple[Site, ...]:
        """The sites of one block."""
        return tuple(site for site in self.sites if site.block == index)

    def owner_of(self, site: Site) -> int:
        """The rank that decides about `site` where its block's sites are independent of each other."""
        names = [each.name for each in self.sites]
        return names.index(site.name) % self.ranks.size

    def kept_whole(self) -> dict[str, str]:
        """Parts of blocks that no site narrows, as in "decoder: cross-attention", each with the reason."""
        found = {}
        for run in self.runs:
            stack = run.stack
            forward = feed_forward_of(stack, run.blocks[0])
            for part, each in (
                ("attention", stack.attention),
                ("cross-attention", stack.cross_attention),
                ("feed-forward", forward),
                ("router", stack.router),
            ):
                if isinstance(each, Unprunable):
                    found[f"{stack.name}: {part}"] = each.reason
        return found


def entry_for(model_type: str) -> Architecture | None:
    """The entry that lists this model type, or None."""
    return next((entry for entry in architectures() if model_type in entry.model_types), None)


def head_dim_of(stack: Stack, config: Any) -> int:
    """Columns per head: from the config where it says so, else hidden size / heads of the dense model."""
    named = getattr(config, stack.widths.head_dim, None) if stack.widths.head_dim else None
    return int(named or config.hidden_size // getattr(config, stack.widths.heads))


def context_of(entry: Architecture, config: Any) -> int | None:
    """The longest input, in tokens, that the model's positions allow; None where they have no limit."""
    name = entry.context.name
    longest = None if name is None else getattr(config, name, None)
    if longest is not None:
        return int(longest) - entry.context.reserved
    if name not in (None, Context().name):
        raise ModelError(f"the config of {config.model_type} has no '{name}'. Correct context in its entry.")
    return None


def anatomy_of(model: PreTrainedModel) -> Anatomy:
    """The sites of `model`, with every fact of its entry checked against its modules.

    Raises:
        UnknownArchitectureError: no entry lists the model's type; the message holds a draft entry.
        ModelError: the model is quantised, carries adapters, or differs from its entry.
    """
    config = model.config
    entry = entry_for(config.model_type)
    if entry is None:
        known = ", ".join(name for each in architectures() for name in each.model_types)
        raise UnknownArchitectureError(
            f"model type '{config.model_type}' ({type(model).__name__}) has no entry; known are {known}. "
            f"Save this draft to a file, check and complete it, and give it with --entry FILE or "
            f"statprune.register(FILE):\n{draft_entry(model)}"
        )
    _refuse_unusable(model, entry)
    _require_stacks(model, entry)
    runs: list[Run] = []
    sites: list[Site] = []
    try:
        for stack in entry.stacks:
            start = runs[-1].end if runs else 0
            run = Run(stack, module_at(model.base_model, stack.blocks), start)
            head_dim = head_dim_of(stack, config)
            for index, block in enumerate(run.blocks):
                place = Place(start + index, f"{stack.name}.{index}")
                found = tuple(sites_of(stack, block, place, head_dim, config))
                _check_linears(block, found, place)
                sites += found
            runs.append(run)
    except (AttributeError, ValueError) as error:
        raise ModelError(
            f"{type(model).__name__} differs from the entry for '{config.model_type}': {error}. "
            f"Adapters and custom layers must be merged or removed first."
        ) from error
    if not sites:
        reasons = dict.fromkeys(Anatomy(entry, tuple(runs), ()).kept_whole().values())
        raise ModelError(f"a '{config.model_type}' cannot be pruned: {'; '.join(reasons)}.")
    return Anatomy(entry, tuple(runs), tuple(sites))


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


def _require_stacks(model: PreTrainedModel, entry: Architecture) -> None:
    """Classes that have a part of a family's stacks are models of another kind."""
    names = " and ".join(stack.name for stack in entry.stacks)
    for stack in entry.stacks if len(entry.stacks) > 1 else ():
        try:
            module_at(model.base_model, stack.blocks)
        except AttributeError:
            raise ModelError(
                f"{type(model).__name__} has no {stack.name}: of '{model.config.model_type}' only "
                f"models with {names} can be pruned. Give the whole model."
            ) from None


def _check_linears(block: nn.Module, sites: tuple[Site, ...], place: Place) -> None:
    for site in sites:
        if site.experts:
            _check_experts(module_at(block, site.consumer), f"{place.name}: {site.consumer}")
            continue
        for path in (*(producer.path for producer in site.producers), site.consumer):
            linear = module_at(block, path)
            if type(linear) not in (nn.Linear, Conv1D, NarrowValues, NarrowReader):
                raise ModelError(
                    f"{place.name}: {path} is a {type(linear).__name__}, not a plain Linear or Conv1D. "
                    f"Dequantise it or merge its adapter first; a layer of the family's own cannot be cut."
                )


def _check_experts(module: nn.Module, place: str) -> None:
    for name in (GATE_UP, DOWN):
        if type(getattr(module, name)) is not nn.Parameter:
            raise ModelError(
                f"{place} holds its {name} as a {type(getattr(module, name)).__name__}, not as a plain "
                f"parameter. Dequantise it, or merge its adapter, first."
            )
    if getattr(module, "is_transposed", False) or getattr(module, "has_bias", False):
        raise ModelError(
            f"{place}, a {type(module).__name__}, has biases or transposed weights. Report this."
        )
    config: Any = getattr(module, "config", None)
    if getattr(module, DOWN).dtype == torch.float64 and config._experts_implementation != "eager":
        raise ModelError(
            f"{place} is torch.float64, which the {config._experts_implementation} of transformers does not "
            f"take. Use float32, or call model.set_experts_implementation('eager') first."
        )
