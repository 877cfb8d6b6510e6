"""The files that hold a folder's weights, and what can be wrong with them."""

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open

from statprune.errors import ModelError

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def weight_files(folder: Path) -> list[Path]:
    """The files that a model in `folder` is opened from; others may hold the same weights in another layout.

    Raises:
        ModelError: there are none, or only pickles; or the index of shards is none.
    """
    index = folder / INDEX
    if (folder / WEIGHTS).exists():
        return [folder / WEIGHTS]
    if index.exists():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError) as error:
            raise ModelError(f"{index} is not an index of shards: {one_line(error)}. Restore it.") from error
        return [folder / name for name in names]
    pickled = sorted(path.name for path in (*folder.glob("*.bin"), *folder.glob("*.pt")))
    if pickled:
        raise ModelError(
            f"{folder} holds weights only as a pickle ({pickled[0]}), which can run code when opened. "
            f"Convert it to safetensors."
        )
    raise ModelError(f"{folder} holds no {WEIGHTS} and no {INDEX}. Complete the folder.")


def check_weights(folder: Path) -> None:
    """Refuse a folder whose weights are not there, are not whole, or are a pickle.

    Raises:
        ModelError: names the file.
    """
    for path in weight_files(folder):
        if not path.exists():
            raise ModelError(f"{folder}: the shard {path.name} is missing. Complete the folder.")
        try:
            with safe_open(path, "pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise ModelError(
                f"{path} is damaged or cut short ({path.stat().st_size} bytes): {one_line(error)}. "
                f"Copy it again."
            ) from error


def one_line(error: BaseException) -> str:
    """What an error says, in at most 300 characters."""
    text = " ".join(str(error).split())
    return (text if len(text) <= 300 else f"{text[:297]}...").rstrip(".") or type(error).__name__
