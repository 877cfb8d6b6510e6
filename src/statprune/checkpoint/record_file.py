"""The record of a run, in the folder that it has made."""

from pathlib import Path
from typing import Any

from statprune.errors import InputError
from statprune.json_file import json_of

RECORD_FILE = "statprune.json"


def read_record(folder: Path) -> dict[str, Any]:
    """What a run has left in `folder`.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    path = folder / RECORD_FILE
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder. Give one that `statprune compress --out` has made.")
    try:
        content = json_of(path)
    except FileNotFoundError:
        raise InputError(
            f"{folder} holds no {RECORD_FILE}. Give a folder that `statprune compress --out` has made."
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}. Compress again, or restore the file.") from error
    if not isinstance(content, dict) or not isinstance(content.get("plan"), dict):
        raise InputError(f"{path} is no record of a run: it lacks 'plan'. Give a folder that was compressed.")
    if not isinstance(content.get("model"), str):
        raise InputError(f"{path} is no record of a run: it does not name the model. Compress again.")
    return content
