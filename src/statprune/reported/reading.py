"""A folder -> what is to be reported of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from statprune.checkpoint.record_file import RECORD_FILE, read_record
from statprune.errors import InputError
from statprune.json_file import json_of
from statprune.reported.wording import clean
from statprune.results import FOLDER as RESULTS
from statprune.results import read as read_results

MEASUREMENT = "measurement.json"
MOST_UNITS = 10**9
REMEDY = "Give a folder that `statprune compress --out` or `statprune plan --out` made."


@dataclass(frozen=True, eq=False)
class Left:
    """What a run, or a measurement, has left in a folder.

    Attributes:
        label: what the page calls it: the folder's name.
        record: the content of its JSON file.
        results: what was recorded later, each as its file holds it, the oldest first.
        measured: whether the folder holds a measurement, and no model.
    """

    label: str
    record: Mapping[str, Any]
    results: Sequence[Mapping[str, Any]] = ()
    measured: bool = False


def read(folder: Path) -> Left:
    """What `folder` holds of a run; else of a measurement.

    Raises:
        InputError: it holds neither, or one of its files cannot be read; with the place and a remedy.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder. {REMEDY}")
    label = clean(folder.resolve().name)
    if (folder / RECORD_FILE).exists() or not (folder / MEASUREMENT).exists():
        return Left(label, _record(folder), _results(folder))
    return Left(label, _measurement(folder / MEASUREMENT), measured=True)


def _record(folder: Path) -> Mapping[str, Any]:
    path = folder / RECORD_FILE
    record = _cleaned(read_record(folder), path)
    for name, part in (("units", record.get("units")), ("plan.widths", record["plan"].get("widths"))):
        counts = list(part.values()) if isinstance(part, Mapping) else []
        if not counts or not all(isinstance(each, int) and 0 <= each < MOST_UNITS for each in counts):
            raise InputError(
                f"{path} is no record of a run: '{name}' is to hold whole numbers by site, and is "
                f"{str(part)[:60]!r}. {REMEDY}"
            )
    return record


def _measurement(path: Path) -> Mapping[str, Any]:
    content = _json(path)
    curves = content.get("curves")
    if not isinstance(curves, Mapping) or not all(isinstance(each, Mapping) for each in curves.values()):
        raise InputError(f"{path} is no measurement: 'curves' is to hold a curve a site. {REMEDY}")
    return _cleaned(content, path)


def _results(folder: Path) -> Sequence[Mapping[str, Any]]:
    place = folder / RESULTS
    return [_cleaned(vars(each), place) for each in read_results(folder)]


def _cleaned(content: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    try:
        found: Mapping[str, Any] = clean(content)
    except RecursionError as error:
        raise InputError(f"{path} cannot be read: it is nested too deep. {REMEDY}") from error
    return found


def _json(path: Path) -> Mapping[str, Any]:
    try:
        content = json_of(path)
    except FileNotFoundError:
        raise InputError(f"{path.parent} holds no {path.name}. {REMEDY}") from None
    except (OSError, ValueError) as error:
        told = " ".join(str(error).split())
        raise InputError(f"{path} cannot be read: {told}. {REMEDY}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds {type(content).__name__}, not an object. {REMEDY}")
    return _cleaned(content, path)
