"""Whether a folder is what an earlier run finished: it is killed before it could remove its state."""

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from statprune.checkpoint.aside import flush
from statprune.json_file import json_of

FILE = "finished.json"


def note_finished(state: Path, folder: Path, facts: Mapping[str, Any]) -> None:
    """Note in the folder `state` what `folder` is, which is whole and will get its final name next.

    `facts` are what a later run should know of it, JSON-able.
    """
    partial = state / f"{FILE}.partial"
    text = json.dumps({"files": content_of(folder), "facts": facts}, indent=1)
    partial.write_text(f"{text}\n", encoding="utf-8")
    flush(partial)
    partial.replace(state / FILE)


def finished(state: Path, out: Path) -> dict[str, Any] | None:
    """The facts noted of `out`, if it is the folder that the run with this state finished; else None."""
    try:
        noted = json_of(state / FILE)
        same = out.is_dir() and noted["files"] == content_of(out) and isinstance(noted["facts"], dict)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    facts: dict[str, Any] = noted["facts"]
    return facts if same else None


def content_of(folder: Path) -> dict[str, str]:
    """Every file with its size, and of JSON a digest: the record of a run is like no other."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest = sha256(path.read_bytes()).hexdigest() if path.suffix == ".json" else ""
        found[path.relative_to(folder).as_posix()] = f"{path.stat().st_size} {digest}".strip()
    return found
