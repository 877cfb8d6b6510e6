"""A per-layer class for every stock class of a known family, made when it is asked for."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import transformers
from transformers.models.auto import modeling_auto

from statprune.anatomy.lookup import entry_for
from statprune.anatomy.parts import DOWN, GATE_UP, Architecture, Attention, FeedForward, Stack
from statprune.anatomy.sites import CROSS_HEADS
from statprune.checkpoint.per_layer_model import PerLayerWidths

PREFIX = "Statprune"
RENAMED = "_weight_conversions"
"""Where transformers keeps on a model how its weights were renamed when it was opened."""


def class_named(name: str) -> type | None:
    """The model class of this name, stock or per layer; None where there is none."""
    stock_class = getattr(transformers, name.removeprefix(PREFIX), None)
    config_class = getattr(stock_class, "config_class", None)
    if not isinstance(stock_class, type) or config_class is None:
        return None
    if not name.startswith(PREFIX):
        return stock_class
    entry = entry_for(config_class.model_type)
    return None if entry is None else per_layer_class(stock_class, entry)


def __getattr__(name: str) -> type:
    # Pickle looks a class up by its module and name.
    model_class = class_named(name) if name.startswith(PREFIX) else None
    if model_class is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return model_class


def per_layer_class(stock_class: Any, entry: Architecture) -> Any:
    """The subclass of `stock_class` whose blocks have widths of their own; always the same one."""
    if issubclass(stock_class, PerLayerWidths):
        return stock_class
    return _make(stock_class, json.dumps(shapes_of(entry)))


def stock_class_of(model_class: type) -> Any:
    """The nearest class above `model_class`, or itself, that transformers ships."""
    return next(kind for kind in model_class.__mro__ if kind.__module__.startswith("transformers.models."))


def turn_into(model: Any, model_class: type) -> None:
    """Make `model` one of `model_class`, in place.

    How transformers renamed weights when it opened `model` belongs to the class that was opened: kept, it
    would rename them on saving, and another class would not find them.
    """
    if type(model) is not model_class:
        vars(model).pop(RENAMED, None)
        model.__class__ = model_class


def auto_classes_of(stock_class: Any) -> list[str]:
    """Names of the auto classes that open `stock_class`, e.g. AutoModelForCausalLM."""
    model_type, name = stock_class.config_class.model_type, stock_class.__name__
    return [auto for auto, stock in stock_names(model_type).items() if stock == name]


def auto_name(architecture: str) -> str:
    """The auto class that opens `architecture`, a class stock or per layer; its own name where none does.

    Of several the plainest: a causal model is also one "for pre-training", a base model one "for encoding".
    """
    saved_class = class_named(architecture)
    autos = auto_classes_of(stock_class_of(saved_class)) if saved_class is not None else []
    autos.sort(key=lambda auto: (auto == "AutoModel", "PreTraining" not in auto))
    return autos[-1] if autos else architecture


def stock_names(model_type: str) -> dict[str, str]:
    """For every auto class that knows `model_type`: the name of the stock class it opens."""
    names = {}
    for auto, kind in vars(modeling_auto).items():
        tables = getattr(kind, "_model_mapping", None)
        if auto.startswith("AutoModel") and tables is not None:
            names[auto] = tables._model_mapping.get(model_type)
    return {auto: name for auto, name in names.items() if isinstance(name, str)}


def shapes_of(entry: Architecture) -> dict[str, Any]:
    """What `PerLayerWidths` must know of a family: which sizes are proportional to which config values."""
    crossed = [stack.widths.heads for stack in entry.stacks if stack.cross_attention is not None]
    aliases = dict.fromkeys([CROSS_HEADS] if crossed else [], *crossed)
    return {"aliases": aliases, "stacks": [_shapes_of_stack(stack) for stack in entry.stacks]}


def _shapes_of_stack(stack: Stack) -> dict[str, Any]:
    outputs: dict[str, str] = {}
    inputs: dict[str, str] = {}
    attributes: dict[str, str] = {}
    heads, neurons = stack.widths.heads, stack.widths.neurons
    for attention, query_heads, key_heads in (
        (stack.attention, heads, stack.widths.kv_heads or heads),
        (stack.cross_attention, CROSS_HEADS, CROSS_HEADS),
    ):
        if not isinstance(attention, Attention):
            continue
        names = {"heads": query_heads, "kv_heads": key_heads, "head_columns": query_heads}
        outputs |= dict.fromkeys(attention.besides, query_heads)
        outputs |= {attention.key: key_heads, attention.value: key_heads, attention.query: query_heads}
        if attention.fused is not None:
            outputs[attention.query] = f"{query_heads} {key_heads} {key_heads}"
        inputs[attention.out] = query_heads
        attributes |= {path: names[quantity] for path, quantity in attention.follows.items()}
    forwards = stack.feed_forward if isinstance(stack.feed_forward, tuple) else (stack.feed_forward,)
    for forward in forwards:
        if isinstance(forward, FeedForward):
            outputs |= {path: neurons for path in (forward.gate, forward.up) if path is not None}
            inputs[forward.down] = neurons
    shared = stack.shared_expert
    if shared is not None and stack.widths.shared_expert is not None:
        outputs |= {path: stack.widths.shared_expert for path in (shared.gate, shared.up) if path is not None}
        inputs[shared.down] = stack.widths.shared_expert
    tensors: dict[str, Any] = {}
    numbers: dict[str, Any] = {}
    experts, width = stack.experts, stack.widths.experts
    if experts is not None and width is not None:
        tensors[experts.path] = {GATE_UP: [1, width], DOWN: [2, width]}
        followers = (path.removeprefix(f"{experts.path}.") for path in experts.follows)
        numbers[experts.path] = dict.fromkeys(followers, width)
    return {
        "name": stack.name,
        "blocks": stack.blocks,
        "outputs": outputs,
        "inputs": inputs,
        "tensors": tensors,
        "numbers": numbers,
        "attributes": attributes,
        "values": _values_of(stack),
    }


def _values_of(stack: Stack) -> list[list[str]]:
    """Of every attention whose values have a weight of their own: that, what reads heads, and key heads."""
    own = (
        (stack.attention, stack.widths.kv_heads or stack.widths.heads),
        (stack.cross_attention, CROSS_HEADS),
    )
    return [
        [attention.value, attention.out, heads]
        for attention, heads in own
        if isinstance(attention, Attention) and attention.fused is None
    ]


class _WithItsCode(PerLayerWidths):
    """A per-layer model that saves the modelling file too: its config names it.

    So what was opened with this package, trained, and saved again still opens without.
    """

    def save_pretrained(
        self, save_directory: str | Path, is_main_process: bool = True, *args: Any, **kwargs: Any
    ) -> None:
        from statprune.checkpoint import modelling  # noqa: PLC0415 - it names the classes of this module

        model: Any = self
        stock_class = stock_class_of(type(self))
        model.config.auto_map = modelling.auto_map(stock_class)
        super().save_pretrained(save_directory, is_main_process, *args, **kwargs)  # type: ignore[misc]
        if is_main_process:
            source = modelling.modelling_source(stock_class, self.shapes)
            (Path(save_directory) / modelling.MODELLING_FILE).write_text(source, encoding="utf-8")


@cache
def _make(stock_class: Any, shapes: str) -> type:
    name = PREFIX + stock_class.__name__
    members = {
        "__module__": __name__,
        "__doc__": f"{stock_class.__name__} whose blocks have widths of their own.",
        "shapes": json.loads(shapes),
    }
    model_class = type(name, (_WithItsCode, stock_class), members)
    _announce(model_class, stock_class)
    return model_class


def _announce(model_class: type, stock_class: Any) -> None:
    """Let pipelines accept `model_class`: they look for its name in the auto classes' tables.

    The key is a subclass that no config has as its type, so no other lookup changes.
    """
    config_class = stock_class.config_class
    key = type(config_class.__name__, (config_class,), {"__module__": __name__})
    for auto in auto_classes_of(stock_class):
        getattr(transformers, auto).register(key, model_class, exist_ok=True)
