"""config.json -> its values, the class that was saved, and the config as its own class; or why not."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from statprune.checkpoint.classes import PREFIX, class_named
from statprune.checkpoint.modelling import MODELLING_FILE
from statprune.checkpoint.weight_files import one_line, require_own_files
from statprune.errors import ModelError
from statprune.json_file import json_of

MOST_BLOCKS = 4096
"""No model has more; a number that is a mistake would take hours to be built."""


def config_of(folder: Path) -> dict[str, Any]:
    """What config.json in `folder` says.

    Raises:
        ModelError: there is none, it says that the weights are quantised, or asks for code that is not here.
    """
    path = folder / "config.json"
    adapter = (folder / "adapter_config.json").exists()
    if adapter:
        where = "beside its weights" if os.path.lexists(path) else "without its base"
        raise ModelError(f"{folder} holds an adapter {where}: merge it, and give the merged model.")
    if not os.path.lexists(path):
        raise ModelError(
            f"{folder} holds no config.json. Give the folder that holds config.json and weights."
        )
    require_own_files(folder)
    try:
        values: dict[str, Any] = json_of(path, unique=False)
        values.get("model_type")
    except (ValueError, AttributeError, OSError) as error:
        raise ModelError(f"{path} is not a JSON object: {one_line(error)}. Restore it.") from error
    quantised = values.get("quantization_config")
    if quantised:
        kind = quantised.get("quant_method", "kind unknown") if isinstance(quantised, dict) else quantised
        raise ModelError(
            f"{folder} is quantised ({kind}): its weights are not plain numbers. "
            f"Prune the original checkpoint, then quantise."
        )
    for key, value in _implementations(values):
        if "/" in value:
            raise ModelError(
                f"{path}: {key} is '{value}', code from the hub, which is never run here. Remove that line."
            )
    _require_kinds(values, path)
    return values


def _implementations(values: Any, depth: int = 0) -> Iterator[tuple[str, str]]:
    """Settings that name code by which parts are computed, of the model and of the models in it."""
    for key, value in values.items() if depth < 4 else ():
        if str(key).endswith("_implementation"):
            each = value.values() if isinstance(value, dict) else [value]
            yield from ((str(key), str(name)) for name in each)
        elif isinstance(value, dict):
            yield from _implementations(value, depth + 1)


def _require_kinds(values: dict[str, Any], path: Path) -> None:
    """Raise ModelError where what says which class to take is of another kind than it should be."""
    names = values.get("architectures") or []
    kinds: dict[str, tuple[bool, str]] = {
        "model_type": (isinstance(values.get("model_type"), str | None), "a name"),
        "architectures": (
            isinstance(names, list) and all(isinstance(name, str) for name in names),
            "a list of names",
        ),
        "auto_map": (isinstance(values.get("auto_map"), dict | None), "an object"),
    }
    for key, (right, wanted) in kinds.items():
        if not right:
            raise ModelError(f"{path}: {key} is {values[key]!r:.80}, and not {wanted}. Correct it.")


def class_for(values: dict[str, Any], folder: Path) -> Any:
    """The class that `values`, a config, says was saved; without a name, the base model of its type."""
    remote = [
        where for where in (values.get("auto_map") or {}).values() if MODELLING_FILE[:-3] not in str(where)
    ]
    model_type = values.get("model_type")
    if model_type not in CONFIG_MAPPING_NAMES:
        need = (
            f"needs code that comes with it ({remote[0]}), never run here. Convert it to a stock type."
            if remote
            else f"is not known to transformers {transformers.__version__}. Update transformers."
        )
        raise ModelError(f"{folder}: model type '{model_type}' {need}")
    names = values.get("architectures") or []
    if not names:
        return transformers.AutoModel
    model_class = class_named(names[0])
    if model_class is not None:
        return model_class
    if remote:
        raise ModelError(
            f"{folder}: {names[0]} needs code that comes with it ({remote[0]}), which is never run here. "
            f"Convert it to a stock class."
        )
    if names[0].startswith(PREFIX) and class_named(names[0].removeprefix(PREFIX)) is not None:
        raise ModelError(
            f"{folder}: '{model_type}' was pruned by an entry of one's own, which is not known here. Give it "
            f"with --entry FILE or statprune.register(FILE)."
        )
    kind = "per-layer class of this package" if names[0].startswith(PREFIX) else "class of transformers"
    raise ModelError(
        f"{folder}: {names[0]}, the class in config.json, is no {kind} {transformers.__version__}. "
        f"Write the name of the class that was saved there."
    )


def parsed_config(folder: Path) -> Any:
    """The folder's config as its own class.

    Raises:
        ModelError: it holds values that its class refuses.
    """
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # classes of configs raise whatever they like
        raise ModelError(f"{folder}/config.json cannot be read: {one_line(error)}. Correct it.") from error
    blocks = getattr(config, "num_hidden_layers", None)
    if isinstance(blocks, int) and blocks > MOST_BLOCKS:
        raise ModelError(f"{folder}/config.json says {blocks} blocks, more than {MOST_BLOCKS}. Correct it.")
    return config


def weightless(model_class: Any, config: Any) -> PreTrainedModel:
    """`model_class`, or the one that an Auto class takes for `config`, on the meta device: no weights.

    Raises:
        ModelError: it cannot be built of this config.
    """
    build = getattr(model_class, "from_config", None) or model_class._from_config
    try:
        with torch.device("meta"):
            model: PreTrainedModel = build(config)
    except Exception as error:  # classes of models raise whatever they like
        raise ModelError(
            f"{model_class.__name__} cannot be built of this config.json: {one_line(error)}. Correct it."
        ) from error
    return model
