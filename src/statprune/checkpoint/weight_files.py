"""The files that hold a folder's weights, and what can be wrong with them."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from statprune.errors import ModelError
from statprune.json_file import json_of

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"

_PLAIN = ("F64", "F32", "F16", "BF16")
_WHOLE = ("I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL")


def weight_files(folder: Path) -> list[Path]:
    """The files that a model in `folder` is opened from; others may hold the same weights in another layout.

    Raises:
        ModelError: there are none, or only pickles; or the index of shards is none.
    """
    if (folder / WEIGHTS).exists():
        return [folder / WEIGHTS]
    if (folder / INDEX).exists():
        return [folder / name for name in sorted(set(_weight_map(folder).values()))]
    pickled = sorted(path.name for path in (*folder.glob("*.bin"), *folder.glob("*.pt")))
    if pickled:
        raise ModelError(
            f"{folder} holds weights only as a pickle ({pickled[0]}), which can run code when opened. "
            f"Convert it to safetensors."
        )
    raise ModelError(f"{folder} holds no {WEIGHTS} and no {INDEX}. Complete the folder.")


def _weight_map(folder: Path) -> dict[str, str]:
    """Which shard holds which tensor, as the index says: plain names of files in the folder."""
    index = folder / INDEX
    try:
        where: dict[str, Any] = json_of(index, unique=False)["weight_map"]
        shards = list(where.values())
    except (ValueError, KeyError, AttributeError, TypeError, OSError) as error:
        raise ModelError(f"{index} is not an index of shards: {one_line(error)}. Restore it.") from error
    for shard in shards:
        if (
            not isinstance(shard, str)
            or not shard.endswith(".safetensors")
            or os.path.basename(shard) != shard
        ):
            raise ModelError(
                f"{index} names the shard {shard!r:.120}, which is no safetensors file of this "
                f"folder. Restore it."
            )
    if not shards:
        raise ModelError(f"{index} names no shard. Restore it.")
    return where


def require_own_files(folder: Path) -> None:
    """Raise ModelError where a file of `folder` is a link to one elsewhere, or to nothing.

    What is read or copied from a folder that somebody else has made is to be in it. The hub's cache, whose
    folders are all links to files of its own, is fine.
    """
    home = Path(os.path.realpath(folder))
    homes = [home, *(above.parent / "blobs" for above in home.parents if above.name == "snapshots")]
    for path in sorted(folder.iterdir()):
        if not path.is_symlink() or path.is_dir():
            continue
        target = Path(os.path.realpath(path))
        if not target.exists() or not any(target.is_relative_to(home) for home in homes):
            where = f"{target}, outside the folder" if target.exists() else "nothing"
            raise ModelError(
                f"{path} is a link to {where}. If that is meant, copy the folder with `cp -rL`, and give the "
                f"copy."
            )


def check_weights(folder: Path) -> None:
    """Refuse a folder whose weights are not there, are not whole, are no plain numbers, or are a pickle.

    Raises:
        ModelError: names the file, and the tensor.
    """
    held: dict[str, set[str]] = {}
    for path in weight_files(folder):
        if not path.exists():
            raise ModelError(f"{folder}: the shard {path.name} is missing. Complete the folder.")
        try:
            path.open("rb").close()
        except OSError as error:
            raise ModelError(f"{path} cannot be read: {error.strerror}. Check its rights.") from error
        try:
            with safe_open(path, "pt") as file:
                names = list(file.keys())
                kinds = {name: file.get_slice(name).get_dtype() for name in names}
        except (SafetensorError, OSError) as error:
            raise ModelError(
                f"{path} is damaged or cut short ({path.stat().st_size} bytes): {one_line(error)}. "
                f"Copy it again."
            ) from error
        _require_plain(kinds.items(), path)
        held[path.name] = set(names)
    if WEIGHTS not in held:
        for name, shard in _weight_map(folder).items():
            if name not in held[shard]:
                raise ModelError(
                    f"{folder / INDEX} says that {shard} holds {name}, and it does not. Copy the folder "
                    f"again."
                )


def _require_plain(kinds: Iterable[tuple[str, str]], path: Path) -> None:
    """Refuse weights that are no floating point numbers, or of 8 bits and fewer: they would be cast."""
    for name, kind in kinds:
        *_, module, own = ("", *name.split("."))
        # GPT-2 and its kin keep masks under attn.bias, which nothing reads.
        is_weight = own == "weight" or (own == "bias" and module not in ("attn", "attention"))
        if kind not in (*_PLAIN, *_WHOLE) or (is_weight and kind in _WHOLE):
            raise ModelError(
                f"{path}: {name} is {kind}; weights are {', '.join(_PLAIN)} here. Convert them, or give the "
                f"checkpoint that they were made from."
            )


def one_line(error: BaseException) -> str:
    """What an error says, in at most 300 characters."""
    text = " ".join(str(error).split())
    return (text if len(text) <= 300 else f"{text[:297]}...").rstrip(".") or type(error).__name__
