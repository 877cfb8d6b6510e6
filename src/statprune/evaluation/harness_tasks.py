"""Tasks of lm-evaluation-harness: names -> tasks with their data, or an error that says which is missing."""

import difflib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import huggingface_hub

from statprune.calibration.sources import is_cached
from statprune.errors import DataError, InputError

NEAREST = 3
"""Names that an error offers for one that is unknown."""
_PATIENCE = 10.0
"""Seconds that the hub has to say that a data set is there."""
_FILES = (
    "json",
    "csv",
    "parquet",
    "text",
    "arrow",
    "pandas",
    "xml",
    "imagefolder",
    "audiofolder",
    "webdataset",
)
"""Data sets of these names are files that the task names."""


@dataclass(frozen=True)
class Tasks:
    """Tasks that are there.

    Attributes:
        manager: the harness's index of all tasks.
        names: tasks, groups and tags, in the order given; patterns are resolved.
        folder: task files of one's own, which stand above the harness's.
    """

    manager: Any
    names: tuple[str, ...]
    folder: Path | None


def find_tasks(asked: str | Sequence[str], folder: str | Path | None = None) -> Tasks:
    """The tasks, groups and tags of these names; nothing of their data is read.

    Args:
        asked: names, as a sequence or joined by commas; `*` and `?` stand for any characters, and a name that
            ends in .yaml is a task file.
        folder: task files of one's own, in the harness's format.

    Raises:
        InputError: the harness is not installed, a name is unknown, or `folder` is none.
    """
    names = asked.split(",") if isinstance(asked, str) else list(asked)
    names = list(dict.fromkeys(name.strip() for name in names if name.strip()))
    if not names:
        raise InputError("no harness task is named; give names joined by commas, such as hellaswag,arc_easy.")
    require_harness()
    place = None if folder is None else Path(os.path.expanduser(folder))
    if place is not None and not any(place.glob("**/*.yaml")):
        what = "holds no .yaml file" if place.is_dir() else "is no folder"
        raise InputError(f"harness tasks: {place} {what}. Give a folder with task files.")
    manager = _manager(names, place)
    found = [each for name in names for each in _resolved(name, manager, place)]
    return Tasks(manager, tuple(dict.fromkeys(found)), place)


def require_harness() -> None:
    """Raise InputError, naming the extra, if lm-evaluation-harness is not installed."""
    if find_spec("lm_eval") is None:
        raise InputError(
            "harness tasks need lm-evaluation-harness, which is not installed. "
            "Install it with `pip install 'statprune[harness]'`."
        )


def load_tasks(tasks: Tasks) -> list[Any]:
    """The tasks and groups themselves, with their data, each once.

    Raises:
        DataError: the data of a task cannot be read.
        InputError: a task cannot be used, or comes twice by way of a group.
    """
    loaded: list[Any] = []
    for name in tasks.names:
        for path in data_sets(name, tasks.manager):
            _require_reachable(name, path)
        loaded += _loaded(name, tasks)
    try:
        flat = tasks.manager.load(loaded)["tasks"]
    except ValueError as error:
        raise InputError(f"harness tasks: {_one_line(error)}. Leave out one of the two.") from error
    for name, task in flat.items():
        _require_usable(name, task)
    return loaded


def data_sets(name: str, manager: Any) -> list[str]:
    """Data sets on the hub that a task, or the tasks of a group or a tag, read; in order, each once."""
    return list(dict.fromkeys(_data_sets(name, manager.task_index, set())))


def _manager(names: list[str], folder: Path | None) -> Any:
    """The harness's index, or that of `folder` alone where it has all: the former takes seconds to read."""
    from lm_eval.tasks import TaskManager  # noqa: PLC0415 - an optional library

    if folder is None:
        return TaskManager()
    own = TaskManager(include_path=str(folder), include_defaults=False)
    if all(_is_whole(name, own.task_index, ()) for name in names):
        return own
    return TaskManager(include_path=str(folder))


def _is_whole(name: Any, index: Any, above: tuple[str, ...]) -> bool:
    """Whether `index` has this task, or this group with all that is in it; a tag may have more elsewhere."""
    entry = index.get(name) if isinstance(name, str) and name not in above else None
    if entry is None or entry.cfg is None:
        return False
    below = entry.cfg.get("task")
    return not isinstance(below, list) or all(_is_whole(each, index, (*above, name)) for each in below)


def _resolved(name: str, manager: Any, folder: Path | None) -> list[str]:
    if name.endswith(".yaml") and Path(name).is_file():
        return [name]
    found: list[str] = manager.match_tasks([name])
    if found:
        return found
    near = difflib.get_close_matches(name, manager.all_tasks, NEAREST)
    nearest = (
        f"the nearest are {', '.join(near)}" if near else "none is near it; `lm_eval ls tasks` lists all"
    )
    where = "" if folder is None else f", nor is it in {folder}"
    raise InputError(f"harness task {name!r} is not known to the harness{where}: {nearest}.")


def _data_sets(spec: Any, index: Any, seen: set[str]) -> Iterator[str]:
    inline = spec if isinstance(spec, dict) else {}
    name = inline.get("task", inline.get("group")) if inline else spec
    entry = index.get(name) if isinstance(name, str) else None
    settings = (getattr(entry, "cfg", None) or {}) | inline
    path = settings.get("dataset_path")
    if isinstance(path, str) and path not in _FILES and not Path(path).exists():
        yield path
    below = settings.get("task")
    members = [*(below if isinstance(below, list) else ()), *sorted(_members(entry))]
    for member in members:
        key = str(member)
        if key not in seen:
            seen.add(key)
            yield from _data_sets(member, index, seen)


def _members(entry: Any) -> set[str]:
    """Of a tag, the tasks that bear it."""
    is_tag = entry is not None and entry.cfg is None
    return set(entry.tags) if is_tag else set()


def _require_reachable(task: str, path: str) -> None:
    """Ask the hub first: without a network the library that loads the data tries for half a minute."""
    if is_cached(path):
        return
    try:
        huggingface_hub.HfApi().dataset_info(path, timeout=_PATIENCE)
    except Exception as error:  # the libraries below raise whatever they like
        raise _unreadable(task, path, error) from error


def _loaded(name: str, tasks: Tasks) -> list[Any]:
    try:
        found = tasks.manager.load([name])
    except ImportError as error:
        raise InputError(f"harness task {name} needs a library: {_one_line(error)}. Install it.") from error
    except Exception as error:  # of the task's file, of its code, or of the libraries that read data
        paths = data_sets(name, tasks.manager)
        raise _unreadable(name, paths[0] if paths else None, error) from error
    groups = found.get("groups", {})
    below = {child for children in found.get("group_map", {}).values() for child in children}
    inside = {task.task_name for group in groups.values() for task in group.get_all_tasks()}
    return [
        *(group for key, group in groups.items() if key not in below),
        *(task for key, task in found["tasks"].items() if key not in inside),
    ]


def _require_usable(name: str, task: Any) -> None:
    if getattr(task, "UNSAFE_CODE", False):
        raise InputError(
            f"harness task {name} runs code that the model writes, and is not run here. "
            f"Use the harness's own command line, with --confirm_run_unsafe_code."
        )
    if getattr(task, "MULTIMODAL", False):
        raise InputError(f"harness task {name} reads images or sound; give tasks of text.")


def _unreadable(task: str, path: str | None, error: Exception) -> DataError:
    what = "its data" if path is None else f"data set {path!r}"
    return DataError(
        f"harness task {task}: {what} cannot be read: {_one_line(error)}. Check the connection, run it once "
        f"where there is one and copy the cache (HF_HOME), or give task files that read local data "
        f"(--harness-tasks-dir)."
    )


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split()).rstrip(".")[:300]
