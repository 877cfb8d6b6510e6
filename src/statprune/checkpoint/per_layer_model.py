"""Stock transformers models whose blocks have widths of their own.

`config.per_layer_config[i]` says how many heads and neurons block i has. The weights, their names and the
arithmetic are those of the stock model; only the sizes of some linear layers differ from block to block.
"""

from typing import Any

from torch import nn


class PerLayerWidths:
    """Put before a stock model class: `class PerLayerBert(PerLayerWidths, BertModel): shapes = {...}`.

    The stock model is built at the widths of the global config; then every block is narrowed to its own.
    """

    shapes: dict[str, Any]
    """What depends on a width of the config, all paths being relative to one block:

    blocks: where the list of blocks is, from the base model.
    outputs, inputs: linear layers whose output or input size is proportional to a width.
    attributes: numbers that a block reads at run time, proportional to a width.
    """

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        # Stock code reads global widths, and is right to: while it builds, every block has them.
        config.allow_global_per_layer_attribute_access = True
        overrides = config.to_dict().get("per_layer_config")
        # None where a head builds its base model by itself: the head, below, narrows that too.
        layer_configs = [] if overrides is None else list(config.per_layer_config)
        config.per_layer_config = None
        super().__init__(config, *args, **kwargs)  # type: ignore[call-arg]
        base: Any = getattr(self, "base_model", self)
        blocks: Any = base.get_submodule(self.shapes["blocks"])
        for block, layer_config in zip(blocks, layer_configs, strict=bool(layer_configs)):
            _narrow_block(block, self.shapes, config, layer_config)
        config.per_layer_config = overrides


def _narrow_block(block: nn.Module, shapes: dict[str, Any], config: Any, layer_config: Any) -> None:
    def scaled(size: int, width: str) -> int:
        here: int = getattr(layer_config, width)
        return size * here // int(getattr(config, width))

    for path, width in shapes["outputs"].items():
        linear = block.get_submodule(path)
        outputs, inputs = _sizes(linear)
        _resize(linear, scaled(outputs, width), inputs)
    for path, width in shapes["inputs"].items():
        linear = block.get_submodule(path)
        outputs, inputs = _sizes(linear)
        _resize(linear, outputs, scaled(inputs, width))
    for path, width in shapes["attributes"].items():
        owner, _, name = path.rpartition(".")
        module = block.get_submodule(owner)
        setattr(module, name, scaled(getattr(module, name), width))


def _sizes(linear: Any) -> tuple[int, int]:
    """(outputs, inputs) of a Linear, or of a transformers Conv1D, which stores its weight transposed."""
    rows, columns = linear.weight.shape
    return (rows, columns) if isinstance(linear, nn.Linear) else (columns, rows)


def _resize(linear: Any, outputs: int, inputs: int) -> None:
    """Keep the first outputs and inputs: the checkpoint's own values are read into them afterwards."""
    if isinstance(linear, nn.Linear):
        weight = linear.weight[:outputs, :inputs]
        linear.out_features, linear.in_features = outputs, inputs
    else:
        weight = linear.weight[:inputs, :outputs]
        linear.nf, linear.nx = outputs, inputs
    linear.weight = nn.Parameter(weight.detach().clone())
    if linear.bias is not None:
        linear.bias = nn.Parameter(linear.bias[:outputs].detach().clone())
