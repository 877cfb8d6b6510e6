"""The modelling file in a per-layer folder: what opens it where this package is not installed."""

import json
from pathlib import Path
from typing import Any

from statprune.anatomy import head_values
from statprune.checkpoint import per_layer_model
from statprune.checkpoint.classes import PREFIX, auto_classes_of, stock_names
from statprune.surgery import follow

MODELLING_FILE = "modeling_statprune.py"


def auto_map(stock_class: Any) -> dict[str, str]:
    """What config.json says of the file: which auto class finds which of its classes."""
    module = MODELLING_FILE.removesuffix(".py")
    return {auto: f"{module}.{PREFIX}{name}" for auto, name in _saved_classes(stock_class).items()}


def modelling_source(stock_class: Any, shapes: dict[str, Any]) -> str:
    """The mixin's own source, and one class for each stock class that `auto_map` names."""
    names = set(_saved_classes(stock_class).values())
    source = Path(per_layer_model.__file__).read_text(encoding="utf-8")
    helpers = [Path(str(each.__file__)).read_text(encoding="utf-8") for each in (head_values, follow)]
    ordered = sorted({*names, stock_class.__name__})
    imports = f"from torch import Tensor, nn\nfrom transformers import {', '.join(ordered)}\n"
    own = source[source.index("from torch import nn\n") : source.index("\nclass ")]
    source = source.replace(own, imports + "\n", 1)
    lines = [
        source,
        *(each[each.index("\nclass ") :].rstrip() + "\n" for each in helpers),
        "",
        "SHAPES = " + json.dumps(shapes, indent=4),
    ]
    for name in ordered:
        lines += ["", "", f"class {PREFIX}{name}(PerLayerWidths, {name}):", "    shapes = SHAPES"]
    return "\n".join(lines) + "\n"


def _saved_classes(stock_class: Any) -> dict[str, str]:
    """Auto class -> stock class: the base model's, and those of the class that is saved."""
    names = stock_names(stock_class.config_class.model_type)
    return {
        "AutoModel": names["AutoModel"],
        **dict.fromkeys(auto_classes_of(stock_class), stock_class.__name__),
    }
