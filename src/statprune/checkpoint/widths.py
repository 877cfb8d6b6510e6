"""How widths are written into config.json; nothing else in this package knows.

Three forms, the plainest that fits is taken: the stock config of the family; the stock config of another
family with the same weights and arithmetic; the stock config with `per_layer_config` and a class of ours.
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, fields
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, PreTrainedModel

from statprune.anatomy.lookup import Anatomy, head_dim_of
from statprune.anatomy.sites import CROSS_HEADS, Site
from statprune.checkpoint import classes
from statprune.checkpoint.modelling import auto_map, modelling_source

# Keys of a config that say how, not what, it was written; and those only a per-layer config has.
_ABOUT = ("transformers_version", "model_type", "architectures", "_name_or_path", "auto_map")
_PER_LAYER = (
    "per_layer_config",
    "block_widths",
    "value_dim",
    "allow_global_per_layer_attribute_access",
    "auto_map",
)


@dataclass(frozen=True, eq=False)
class Encoding:
    """What a saved folder says about its widths."""

    config: Any
    """The config to write: a copy, the model's own is left alone."""
    architecture: str
    """Name of the class that opens the folder."""
    stock: bool
    """Whether transformers alone opens it."""
    reencoded_as: str | None
    """The model type it is written as, where that differs from the model's own."""
    modelling: str | None
    """Text of the modelling file, where one is needed."""
    reason: str
    """One sentence for the user: why this form."""


def encode(model: PreTrainedModel, anatomy: Anatomy) -> Encoding:
    """The plainest form in which the widths of `model` can be written."""
    stock_class = classes.stock_class_of(type(model))
    model_type = model.config.model_type
    widths = _widths(anatomy)
    config = copy_of_config(model)

    obstacle = _obstacle(model, anatomy, widths)
    if obstacle is None:
        write_stock(config, anatomy, widths)
        if accepts(config):
            config.architectures = [stock_class.__name__]
            reason = f"every block has the same widths, and the config of {model_type} can say them."
            return Encoding(config, stock_class.__name__, True, None, None, reason)
        other = anatomy.entry.reencode.get(model_type)
        heads = widths[anatomy.runs[0].stack.widths.heads][0]
        refusal = (
            f"the config of {model_type} refuses {heads} heads for a hidden size of {config.hidden_size}"
        )
        encoding = None if other is None else reencoded(model, config, stock_class, other, refusal)
        if encoding is not None:
            return encoding
        obstacle = f"{refusal}, and no other model type has the same weights"
        config = copy_of_config(model)

    _write_per_layer(config, anatomy, widths)
    architecture = classes.PREFIX + stock_class.__name__
    config.architectures = [architecture]
    config.auto_map = auto_map(stock_class)
    source = modelling_source(stock_class, classes.shapes_of(anatomy.entry))
    return Encoding(config, architecture, False, None, source, f"{obstacle}.")


def copy_of_config(model: PreTrainedModel) -> Any:
    """The config of `model`, that of its own dtype; the original is left alone."""
    config = deepcopy(model.config)
    config.dtype = str(model.dtype).removeprefix("torch.")
    return config


def adopt(model: PreTrainedModel, anatomy: Anatomy) -> None:
    """Make the config and the class of `model` say the widths its modules have.

    Afterwards it generates with any cache, and its own `save_pretrained` writes a folder that loads again
    once this package is imported. What only another model type could say stays per layer in memory.
    """
    widths = _widths(anatomy)
    stock_class = classes.stock_class_of(type(model))
    trial = deepcopy(model.config)
    write_stock(trial, anatomy, widths)
    if _obstacle(model, anatomy, widths) is None and accepts(trial):
        write_stock(model.config, anatomy, widths)
        classes.turn_into(model, stock_class)
    else:
        _write_per_layer(model.config, anatomy, widths)
        model.config.allow_global_per_layer_attribute_access = True
        classes.turn_into(model, classes.per_layer_class(stock_class, anatomy.entry))
    model.config.architectures = [type(model).__name__]


def _widths(anatomy: Anatomy) -> dict[str, list[int]]:
    """For every width the family's config names: its value wherever it stands, block by block."""
    found: dict[str, list[int]] = {}
    for site in anatomy.sites:
        stack = anatomy.stack_of(site)
        for name, value in _named(site).items():
            known = stack.widths.heads if name == CROSS_HEADS else name
            found.setdefault(known, []).append(value)
    return found


def _named(site: Site) -> dict[str, int]:
    quantities = site.quantities(site.units)
    return {name: quantities[quantity] for name, quantity in site.names.items()}


def _obstacle(model: PreTrainedModel, anatomy: Anatomy, widths: Mapping[str, list[int]]) -> str | None:
    """Why no stock config of the model's own kind can say these widths; None where one may."""
    if value_dim_of(anatomy) is not None:
        return f"values of heads are narrower than keys, which no config of {model.config.model_type} can say"
    uneven = [name for name, values in widths.items() if len(set(values)) > 1]
    if uneven:
        return f"blocks differ in {' and '.join(uneven)}"
    for run in anatomy.runs:
        names = run.stack.widths
        dense = getattr(model.config, names.heads)
        if names.head_dim is None and widths.get(names.heads, [dense])[0] != dense:
            return (
                f"the config of {model.config.model_type} computes the size of a head from their number, "
                f"{dense}"
            )
    return None


def value_dim_of(anatomy: Anatomy) -> int | None:
    """The columns of every head's values, where these are fewer than those of keys."""
    narrow = {
        site.value_dim for site in anatomy.sites if site.values_apart and site.value_dim < site.head_dim
    }
    return min(narrow) if narrow else None


def write_stock(config: Any, anatomy: Anatomy, widths: Mapping[str, list[int]]) -> None:
    """Write the first of each of `widths`, by the config's names, and the size of a head, into `config`."""
    _clear(config)
    for run in anatomy.runs:
        name = run.stack.widths.head_dim
        if name is not None:
            setattr(config, name, head_dim_of(run.stack, config))
    for name, values in widths.items():
        setattr(config, name, values[0])


def _clear(config: Any) -> None:
    config.per_layer_config = None
    for key in _PER_LAYER:
        config.__dict__.pop(key, None)


def _write_per_layer(config: Any, anatomy: Anatomy, widths: Mapping[str, list[int]]) -> None:
    """Neurons go into the global config where all blocks agree; head counts there stay the dense ones.

    The modelling files compute the size of a head as hidden size / heads, and caches read `head_dim`.
    """
    _clear(config)
    value_dim = value_dim_of(anatomy)
    if value_dim is not None:
        config.value_dim = value_dim
    own = {
        run.stack.name: [
            {name: value for site in anatomy.sites_of_block(index) for name, value in _named(site).items()}
            for index in range(run.start, run.end)
        ]
        for run in anatomy.runs
    }
    if len(anatomy.runs) > 1:
        config.block_widths = own
        return
    stack = anatomy.runs[0].stack
    config.head_dim = head_dim_of(stack, config)
    for name in dict.fromkeys((stack.widths.neurons, stack.widths.experts, stack.widths.shared_expert)):
        neurons = widths.get(name, []) if name is not None else []
        if name is not None and neurons and (len(set(neurons)) == 1 or getattr(config, name) is None):
            setattr(config, name, max(neurons))
    config.per_layer_config = dict(enumerate(own[stack.name]))
    # Without this, a stock class refuses the config at once, whatever it is told about mismatched sizes. But
    # the validator of some configs reads global widths.
    if not accepts(config):
        config.allow_global_per_layer_attribute_access = True


def accepts(config: Any) -> bool:
    """Whether a config file of this content can be read again."""
    try:
        type(config)(**config.to_dict())
    except (ValueError, RuntimeError, StrictDataclassError):
        return False
    return True


def reencoded(
    model: PreTrainedModel, config: Any, stock_class: Any, other: str, refusal: str = ""
) -> Encoding | None:
    """The same model written as model type `other`; None where it lacks one of the weights, or adds one."""
    others = classes.stock_names(other)
    found = [others[auto] for auto in classes.auto_classes_of(stock_class) if auto in others]
    if not found:
        return None
    values = {name: value for name, value in config.to_dict().items() if name not in _ABOUT}
    other_class = type(AutoConfig.for_model(other))
    known = set(other_class().to_dict())
    dropped = {each.name for each in fields(config) if each.name not in known}
    kept = {name: value for name, value in values.items() if name not in dropped}
    # Mistral's default is a window; a llama has none.
    rewritten = other_class(**{**kept, "sliding_window": None})
    rewritten.architectures = [found[0]]
    with torch.device("meta"):
        twin = getattr(transformers, found[0])(deepcopy(rewritten))
    if {name: p.shape for name, p in twin.state_dict().items()} != {
        name: p.shape for name, p in model.state_dict().items()
    }:
        return None
    reason = f"{refusal}; written as {other}, which has the same weights and arithmetic."
    return Encoding(rewritten, found[0], True, other, None, reason)
