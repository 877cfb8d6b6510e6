"""A JSON file that anybody may have written -> its content, or a ValueError that says what is wrong."""

import json
from pathlib import Path
from typing import Any

MOST = 2**30
"""Bytes that are read at most."""


def json_of(path: Path, *, most: int = MOST, unique: bool = True) -> Any:
    """What the file holds; with `unique`, no key of an object comes twice.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no JSON in UTF-8, is larger than `most` bytes, or is nested too deeply for Python.
    """
    with path.open("rb") as file:
        read = file.read(most + 1)
    if len(read) > most:
        raise ValueError(f"it is larger than {most} bytes")
    try:
        return json.loads(read.decode("utf-8"), object_pairs_hook=_once if unique else None)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"it says {next(name for name in names if names.count(name) > 1)!r} twice")
    return content
