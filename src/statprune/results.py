"""What was measured of a compressed model afterwards, kept in its folder: one file a result.

    OUT/results/001-evaluation-glue-sst2.json

They are for its report and its model card. A result is never overwritten; two of the same kind stand side by
side, and the later one counts.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from statprune.checkpoint.aside import aside
from statprune.checkpoint.record_file import RECORD_FILE, read_record
from statprune.errors import InputError, OutputError
from statprune.json_file import json_of

FOLDER, FORMAT = "results", 1
Kind = Literal["evaluation", "harness", "benchmark"]
Subject = Literal["this", "dense"]


@dataclass(frozen=True)
class Recorded:
    """One result.

    Attributes:
        kind: of the command that measured.
        of: "this", the model in the folder, or "dense", the one that it was made of. A benchmark of "this"
            against the dense model holds both.
        model: the name that was given.
        when: ISO 8601, UTC.
        result: what the command prints with --json.
    """

    kind: Kind
    of: Subject
    model: str
    when: str
    result: Mapping[str, Any]


def subject_of(model: str | Path, folder: Path) -> Subject:
    """Whether `model` is the one in `folder`, or the one it was made of; asked before anything is measured.

    Raises:
        InputError: neither; or `folder` holds no record of a run.
        OutputError: nothing can be written there.
    """
    record = read_record(folder)
    own = Path(model)
    if own.is_dir() and own.resolve() == folder.resolve():
        subject: Subject = "this"
    elif (own.resolve().name if own.is_dir() else str(model)) == Path(record["model"]).name or str(
        model
    ) == record["model"]:
        subject = "dense"
    else:
        raise InputError(
            f"--record {folder} keeps results of itself and of {record['model']}, which it was made of; "
            f"{model} is neither. Give the folder of the model that is measured."
        )
    _writable(folder)
    return subject


def write(folder: Path, kind: Kind, of: Subject, model: str | Path, result: Mapping[str, Any]) -> Path:
    """Keep a result in `folder`; its file.

    Raises:
        OutputError: it cannot be written.
    """
    home = _writable(folder)
    name = model if not Path(model).is_absolute() else Path(model).name
    content = Recorded(kind, of, str(name), datetime.now(UTC).isoformat(timespec="seconds"), result)
    what = re.sub(r"[^a-z0-9]+", "-", _named(kind, result).lower()).strip("-")[:60]
    number = 1 + max((int(path.name[:3]) for path in home.glob("[0-9][0-9][0-9]-*.json")), default=0)
    path = home / f"{number:03d}-{'-'.join(part for part in (kind, of, what) if part)}.json"
    with aside(path) as partial:
        text = json.dumps({"format": FORMAT} | asdict(content), indent=1, ensure_ascii=False)
        partial.write_text(f"{text}\n", encoding="utf-8")
    return path


def read(folder: Path) -> list[Recorded]:
    """The results kept in `folder`, in the order in which they were made.

    Raises:
        InputError: one of them cannot be read.
    """
    return [_read(path) for path in sorted((folder / FOLDER).glob("*.json"))]


def _read(path: Path) -> Recorded:
    try:
        content = json_of(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}. Remove it, and measure again.") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else None
        raise InputError(f"{path} is of format {found!r}; this version reads {FORMAT}. Remove it.")
    content = {name: value for name, value in content.items() if name != "format"}
    whole = set(content) == set(Recorded.__dataclass_fields__) and isinstance(content["result"], dict)
    if not whole or content["kind"] not in get_args(Kind) or content["of"] not in get_args(Subject):
        raise InputError(f"{path} is no result: its keys are {', '.join(sorted(content))}. Remove it.")
    return Recorded(**content)


def _named(kind: Kind, result: Mapping[str, Any]) -> str:
    """What of many it is a result of, for the file's name."""
    protocol = result.get("protocol") or {}
    if kind == "evaluation":
        return str(result.get("task") or (protocol.get("data") or {}).get("source", ""))
    if kind == "harness":
        return "-".join(sorted({str(score.get("task")) for score in result.get("scores", ())}))
    return ""


def _writable(folder: Path) -> Path:
    home = folder / FOLDER
    try:
        home.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{home} cannot be made: {error.strerror}. Results are kept beside {RECORD_FILE}; "
            f"leave out --record, or make the folder writable."
        ) from error
    return home
