"""A folder or a hub name -> the model with its tokenizer, or one line that says why not."""

import os
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)
from torch import Tensor, nn
from transformers import AutoProcessor, AutoTokenizer, PreTrainedModel

from statprune.anatomy.lookup import anatomy_of
from statprune.checkpoint.config_file import class_for, config_of, parsed_config, weightless
from statprune.checkpoint.offload import (
    Lender,
    lender_of,
    places_of,
    require_accelerate,
    without_warnings_of_accelerate,
)
from statprune.checkpoint.sentence_folder import MODULES_FILE, place_of_transformer
from statprune.checkpoint.weight_files import WEIGHTS, check_weights, one_line
from statprune.errors import ModelError, NonFiniteError, StatpruneWarning

TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt")
PROCESSOR = ("preprocessor_config.json", "processor_config.json")
_LEGAL = ("LICENSE*", "NOTICE*", "USE_POLICY*")
_CARD = "README.md"
_HUB_FILES = ("*.json", "*.txt", "*.model", "*.jinja", _CARD, WEIGHTS, "model-*.safetensors", *_LEGAL)
_MODULES_FILES = (*_HUB_FILES, "*/model.safetensors", "*/model-*.safetensors")


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model that can be pruned, in eval mode, and what came with it."""

    model: PreTrainedModel
    tokenizer: Any | None
    processor: Any | None
    source: Path
    """The folder it was read from; of a hub model, its folder in the local cache.

    Of sentence-transformers the whole folder, wherever in it the transformer lies.
    """
    lender: Lender | None = None
    """Of the blocks' weights, where they stay on disk."""


def load(
    source: str | Path,
    *,
    dtype: str | torch.dtype = "auto",
    device: str = "cpu",
    scratch: Path | None = None,
) -> Loaded:
    """The model in a folder, or of a name on the hub, as its own class, with all its weights.

    With `scratch`, a folder, those of its blocks stay on disk; some are converted there. No code from the
    folder is run, and no pickle is opened.

    Raises:
        ModelError: there is no model there, it is not whole, or it is of a kind that cannot be pruned.
    """
    whole = folder_of(source)
    if (whole / MODULES_FILE).exists():
        whole = folder_of(source, _MODULES_FILES)
    folder = whole / place_of_transformer(whole)
    values = config_of(folder)
    model_class = class_for(values, folder)
    check_weights(folder)
    lender = None
    if scratch is None:
        model = open_weights(model_class, folder, config=parsed_config(folder), dtype=dtype)
        model.to(device)
    else:
        if folder != whole:
            raise ModelError(f"{whole} is a folder of sentence-transformers; offload takes plain models.")
        model, lender = _open_offloaded(model_class, folder, scratch, dtype, device)
    tokenizer = processor = None
    if any((folder / name).exists() for name in TOKENIZER):
        tokenizer = _companion(AutoTokenizer, folder, "tokenizer")
    if any((folder / name).exists() for name in PROCESSOR):
        processor = _companion(AutoProcessor, folder, "processor")
    return Loaded(model, tokenizer, processor, whole, lender)


def _open_offloaded(
    model_class: Any, folder: Path, scratch: Path, dtype: str | torch.dtype, device: str
) -> tuple[PreTrainedModel, Lender]:
    require_accelerate()
    config, skeleton = parsed_config(folder), weightless(model_class, parsed_config(folder))
    places, kind = places_of(skeleton, anatomy_of(skeleton), device), type(skeleton)
    del skeleton  # of a deep model its modules alone take room
    with without_warnings_of_accelerate():
        model = open_weights(
            kind, folder, config=config, dtype=dtype, device_map=places, offload_folder=scratch
        )
    return model, lender_of(model, device)


def open_weights(model_class: Any, folder: Path, **options: Any) -> PreTrainedModel:
    """`model_class` with the weights in `folder`, in eval mode; none of them random, no block's left out.

    A base model whose pooler was not saved comes without one.

    Raises:
        ModelError: a weight is missing or has another shape than the config says, or a block holds weights
            that the config knows nothing of.
    """
    try:
        model, report = model_class.from_pretrained(
            folder,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            **options,
        )
    except MemoryError:
        raise
    except Exception as error:  # classes of models raise whatever they like
        raise ModelError(
            f"{folder}: the weights do not fit {model_class.__name__}: {one_line(error)}. "
            f"Check that config.json and generation_config.json belong to these weights."
        ) from error
    missing = sorted(report["missing_keys"])
    if missing and all(name.startswith("pooler.") for name in missing) and "add_pooling_layer" not in options:
        return open_weights(model_class, folder, add_pooling_layer=False, **options)
    if missing:
        raise ModelError(
            f"{folder}: {_some(missing)} missing from the weights, and would be random in "
            f"{model_class.__name__}. Complete the folder, or name the class that was saved in config.json."
        )
    unread = sorted(report["unexpected_keys"])
    inside = [name for name in unread if re.search(r"\.\d+\.", name)]
    if inside:
        raise ModelError(
            f"{folder}: {_some(inside)} in the weights, of which {model_class.__name__} with this config has "
            f"no use: a block would lose them. Correct config.json."
        )
    if unread:
        warnings.warn(
            f"{folder}: {_some(unread)} left out, {model_class.__name__} has no use for them.",
            StatpruneWarning,
            stacklevel=2,
        )
    model.eval()
    return model


def require_finite(module: nn.Module, place: str = "") -> None:
    """Raise NonFiniteError if a parameter at hand holds a NaN or an infinity; name the first one."""
    for own, parameter in module.named_parameters():
        name = place + own
        if type(parameter.data) is not Tensor or parameter.is_meta:
            continue  # elsewhere, or packed by a library for quantising, which answers for it
        if parameter.is_floating_point() and not torch.isfinite(parameter).all():
            nans, infinities = int(parameter.isnan().sum()), int(parameter.isinf().sum())
            raise NonFiniteError(
                f"{name} holds {nans} NaN and {infinities} infinite of {parameter.numel()} values: what it "
                f"computes means nothing. Use another checkpoint, or the dtype it was trained in."
            )


def folder_of(source: str | Path, files: Sequence[str] = _HUB_FILES) -> Path:
    """The folder `source` names, or the local copy of these `files` of the hub model of that name."""
    folder = Path(os.path.expanduser(source))
    if folder.is_dir():
        return folder
    if folder.exists():
        raise ModelError(f"{source} is a file. Give the folder that holds config.json and the weights.")
    if isinstance(source, Path) or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", source) or source[0] in "./~":
        raise ModelError(f"{source} does not exist. Give a folder with a model, or its name on the hub.")
    try:
        return Path(snapshot_download(source, allow_patterns=list(files), etag_timeout=5))
    except GatedRepoError as error:
        raise ModelError(
            f"'{source}' is gated on the hub. Accept its terms there, and log in with `hf auth login`."
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise ModelError(
            f"'{source}' is neither a folder here nor a model on the hub. Check its spelling, and if it is "
            f"private, log in with `hf auth login`."
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError) as error:
        raise ModelError(
            f"'{source}' is no folder here, and the hub cannot be reached ({type(error).__name__}). "
            f"Check the spelling or the connection, or give a folder."
        ) from error


def _companion(auto_class: Any, folder: Path, what: str) -> Any:
    try:
        return auto_class.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # the libraries below raise whatever they like
        unseeing = what == "processor" and find_spec("PIL") is None
        images = " Those of images need pillow: pip install 'statprune[images]'." if unseeing else ""
        raise ModelError(
            f"{folder}: its {what} cannot be opened: {one_line(error)}. Repair or remove its files.{images}"
        ) from error


def _some(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
