"""What the caller gives -> a model, its tokenizer, and data, or an error that says what to give instead."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
from transformers import PreTrainedModel

from statprune.anatomy.lookup import context_of, entry_for
from statprune.calibration.records import Records, from_memory, read
from statprune.checkpoint.load import load
from statprune.checkpoint.offload import Lender
from statprune.errors import DataError, InputError, ModelError

LONGEST_DEFAULT = 2048
"""Tokens per sample where the model's context allows more."""


@dataclass(frozen=True, eq=False)
class Opened:
    """A model, what came with it, the folder it came from (None for one in memory), and its name."""

    model: PreTrainedModel
    tokenizer: Any | None
    processor: Any | None
    source: Path | None
    name: str
    lender: Lender | None = None
    """Of the weights of its blocks, where they stay on disk."""


# Names of torch dtypes, and "auto".
DTYPES = ("auto", "float32", "bfloat16", "float16", "float64")


def open_model(
    model: PreTrainedModel | str | Path,
    tokenizer: Any = None,
    *,
    dtype: str = "auto",
    device: str = "auto",
    scratch: Path | None = None,
) -> Opened:
    """A model in memory as it is, or loaded from a folder or the hub.

    Args:
        model: the model, its folder, or its name.
        tokenizer: takes precedence over the one that lies beside the model; for images or sound their
            processor, with the tokenizer where it has one.
        dtype: what weights are loaded as; "auto" keeps the checkpoint's.
        device: "auto" takes a GPU where there is one, and leaves a model in memory where it is.
        scratch: a folder, for a model whose blocks stay on disk.

    Raises:
        ModelError: the model cannot be opened.
        InputError: `dtype` or `device` does not exist, or `dtype` is given for a model in memory.
    """
    if dtype not in DTYPES:
        raise InputError(f"dtype is {dtype!r}; choose one of {', '.join(DTYPES)}.")
    tokenizer, processor = _apart(tokenizer)
    if isinstance(model, str | Path):
        loaded = load(model, dtype=dtype, device=_device(device), scratch=scratch)
        own = tokenizer if tokenizer is not None else loaded.tokenizer
        processor = processor if processor is not None else loaded.processor
        return Opened(loaded.model, own, processor, loaded.source, str(model), loaded.lender)
    if not isinstance(model, PreTrainedModel):
        raise ModelError(f"{type(model).__name__} is neither a Hugging Face model nor the name of one.")
    if scratch is not None:
        raise InputError(
            "offload leaves blocks on disk, and this model is in memory. Give its folder or name."
        )
    if dtype != "auto":
        raise InputError(
            f"dtype {dtype} is given for a model in memory; convert it yourself: model.to(torch.{dtype})."
        )
    if device != "auto":
        model.to(_device(device))
    origin = Path(model.name_or_path) if model.name_or_path else None
    folder = origin if origin is not None and origin.is_dir() else None
    return Opened(model, tokenizer, processor, folder, f"{type(model).__name__} in memory")


def context_length(opened: Opened) -> int | None:
    """The longest input, in tokens, that the model's positions allow; None where they have no limit."""
    config = opened.model.config
    entry = entry_for(config.model_type)
    if entry is not None:
        return context_of(entry, config)
    return int(getattr(config, "max_position_embeddings", LONGEST_DEFAULT))


def sequence_length(opened: Opened, asked: int | None) -> int:
    """Tokens per sample: what was asked, or the smaller of 2048 and the context.

    Raises:
        DataError: more was asked than the context, or fewer than 2.
        ModelError: the tokenizer's own limit is no number.
    """
    positions = context_length(opened) or LONGEST_DEFAULT
    own = getattr(opened.tokenizer, "model_max_length", None) or positions
    if not isinstance(own, int | float):
        raise ModelError(
            f"{opened.name}: the tokenizer's model_max_length is {own!r:.80}. Give it a whole number."
        )
    limit = int(min(positions, own))
    if asked is not None and not 2 <= asked <= limit:
        whose = "this model" if limit == positions else "the tokenizer (model_max_length)"
        raise DataError(f"sequence length {asked}: {whose} takes from 2 to {limit} tokens.")
    return asked or min(LONGEST_DEFAULT, limit)


def records_of(
    data: Any,
    opened: Opened,
    text_column: str | tuple[str, str] | None,
    split: str,
    characters: int | None = None,
) -> Records:
    """Records of a SOURCE, or of texts in memory; `split` is taken where the source names none.

    Of a data set on the hub no more is read than the first records that hold `characters`; None reads all.

    Raises:
        DataError: the data cannot be read, or it is text and there is no tokenizer.
    """
    if isinstance(data, str | Path):
        records = read(
            str(data),
            text_column=text_column,
            tokenizer=opened.tokenizer,
            split_default=split,
            characters=characters,
        )
    else:
        records = from_memory(data, text_column=text_column, tokenizer=opened.tokenizer)
    if opened.tokenizer is None and isinstance(records.texts[0], str):
        raise DataError(f"{opened.name}: no tokenizer, but the data is text. Give a tokenizer, or token ids.")
    return records


def is_of_content(opened: Opened) -> bool:
    """Whether the model reads images or sound, not text."""
    return bool(opened.model.main_input_name != "input_ids")


def listed(data: Any) -> Any:
    """`data`, an iterable that can be walked only once (a loader, a generator) as a list.

    A data set that is tokenised already becomes its rows of token ids.
    """
    if isinstance(data, datasets.Dataset):
        return data.with_format(None)["input_ids"][:] if "input_ids" in data.column_names else data
    if isinstance(data, str | Path | Mapping | list | tuple) or not isinstance(data, Iterable):
        return data
    return list(data)


def are_batches(data: Any) -> bool:
    """Whether `data` is batches that the caller made: a list of dicts that hold tensors."""
    first = data[0] if isinstance(data, list | tuple) and data else None
    return isinstance(first, Mapping) and any(isinstance(value, torch.Tensor) for value in first.values())


def _apart(given: Any) -> tuple[Any, Any]:
    """The tokenizer, and the processor of images or sound, that are meant; None for what is not."""
    reads_content = any(
        hasattr(given, name)
        for name in ("feature_extractor", "image_processor", "image_mean", "sampling_rate")
    )
    return (getattr(given, "tokenizer", None), given) if reads_content else (given, None)


def _device(asked: str) -> str:
    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(asked).type
    except RuntimeError:
        kind = ""
    if kind not in ("cpu", "cuda"):
        raise InputError(f"device is {asked!r}; give cpu, cuda or cuda:N.")
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind == "cuda" and (torch.device(asked).index or 0) >= gpus:
        raise InputError(f"device is {asked!r}, but torch sees {gpus} GPUs; give cpu, or one that is there.")
    return asked
