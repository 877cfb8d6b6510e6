"""Stock transformers models whose blocks have widths of their own.

`config.per_layer_config[i]` says how many heads and neurons block i has; where a model has an encoder and a
decoder, `config.block_widths` says it for both. `config.value_dim`, if it is there, is how many columns the
values of every head have. The weights, their names and the arithmetic are those of the stock model; only
the sizes of some linear layers differ from block to block.
"""

from functools import reduce
from typing import Any

from torch import nn

from statprune.anatomy.head_values import narrow_head_values
from statprune.surgery.follow import follow


class PerLayerWidths:
    """Put before a stock model class: `class PerLayerBert(PerLayerWidths, BertModel): shapes = {...}`.

    The stock model is built at the widths of the global config; then every block is narrowed to its own.
    """

    shapes: dict[str, Any]
    """What depends on a width of the config:

    aliases: widths that have no name in the config -> the config's name for what they are in the stock model.
    stacks: for each list of blocks its name and where it is, from the base model; then, by path in a block,

        outputs, inputs: the widths, of which the size of a linear layer is proportional to the sum.
        tensors, numbers: of modules that some blocks have, by name: the dimension of a tensor and the width
            that it is proportional to; the width that a number is proportional to.
        attributes: the width that a number read at run time is proportional to.
        values: value projections, what reads them, and the width that their outputs are proportional to.
    """

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        # Stock code reads global widths, and is right to: while it builds, every block has them.
        config.allow_global_per_layer_attribute_access = True
        overrides = config.to_dict().get("per_layer_config")
        # None where a head builds its base model by itself: the head, below, narrows that too.
        if overrides is not None:
            widths = {"blocks": [vars(each) for each in config.per_layer_config]}
        else:
            widths = getattr(config, "block_widths", None) or {}
        config.per_layer_config, config.block_widths = None, None
        super().__init__(config, *args, **kwargs)  # type: ignore[call-arg]
        base: Any = getattr(self, "base_model", self)
        for stack in self.shapes["stacks"] if widths else ():
            blocks: Any = base.get_submodule(stack["blocks"])
            for block, own in zip(blocks, widths[stack["name"]], strict=True):
                _narrow_block(block, stack, self.shapes["aliases"], config, own)
        config.per_layer_config = overrides
        config.__dict__.pop("block_widths", None)
        if overrides is None and widths:
            config.block_widths = widths


def _narrow_block(
    block: nn.Module, stack: dict[str, Any], aliases: dict[str, str], config: Any, own: dict[str, Any]
) -> None:
    def scaled(size: int, widths: str) -> int:
        names = widths.split()
        whole = [int(getattr(config, aliases.get(name, name))) for name in names]
        here = [int(own.get(name, width)) for name, width in zip(names, whole, strict=True)]
        return size * sum(here) // sum(whole)

    value_dim = int(getattr(config, "value_dim", 0))
    narrow = stack["values"] if value_dim else ()
    head_dims = [
        _sizes(block.get_submodule(values))[0] // int(getattr(config, aliases.get(heads, heads)))
        for values, _, heads in narrow
    ]
    for path, linear in block.named_modules():
        if path in stack["outputs"] or path in stack["inputs"]:
            outputs, inputs = _sizes(linear)
            outputs = scaled(outputs, stack["outputs"][path]) if path in stack["outputs"] else outputs
            inputs = scaled(inputs, stack["inputs"][path]) if path in stack["inputs"] else inputs
            _resize(linear, outputs, inputs)
        for name, (dimension, width) in stack["tensors"].get(path, {}).items():
            whole = getattr(linear, name).detach()
            part = whole.narrow(dimension, 0, scaled(whole.shape[dimension], width))
            setattr(linear, name, nn.Parameter(part.clone()))
        for name, width in stack["numbers"].get(path, {}).items():
            setattr(linear, name, scaled(getattr(linear, name), width))
    for path, name in stack["attributes"].items():
        size: Any = reduce(getattr, path.split("."), block)
        follow(block, path, scaled(size, name))
    for (values, reader, _), head_dim in zip(narrow, head_dims, strict=True):
        made, read = block.get_submodule(values), block.get_submodule(reader)
        (rows, inputs), (outputs, columns) = _sizes(made), _sizes(read)
        _resize(made, rows // head_dim * value_dim, inputs)
        _resize(read, outputs, columns // head_dim * value_dim)
        narrow_head_values(made, read, head_dim, value_dim)


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
