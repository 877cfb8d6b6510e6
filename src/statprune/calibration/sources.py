"""SOURCE -> rows in columns: one split of a data set on the hub or on disk, or files of tables."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub

from statprune.calibration.formats import PLAIN, TABLES, Column, Columns, columns, extension
from statprune.errors import DataError


@dataclass(frozen=True)
class Table:
    """Rows in columns, and where they came from: source, kind, config, split, files, ready for JSON."""

    columns: Columns
    description: dict[str, Any]


def table(
    source: str, *, split_default: str, as_text: tuple[str, ...] = (), rows: int | None = None
) -> Table:
    """The columns of SOURCE, as `calibration.records.read` reads it, where it is a table.

    Args:
        source: `NAME[:CONFIG][@SPLIT]` on the hub, or a local file or folder `[@SPLIT]`.
        split_default: The split of a hub data set or a folder when SOURCE names none.
        as_text: Columns whose cells are text although they may look like numbers (CSV, TSV).
        rows: Of a hub data set read no more than the first; None for all.

    Raises:
        DataError: There is no such file or data set, it cannot be read, or it is no table.
    """
    name, split = without_split(source)
    path = Path(os.path.expanduser(name))
    if path.is_dir():
        return _folder(path, name, split, split_default, as_text)
    if path.exists():
        require_no_split(name, split)
        return Table(_file(path, as_text), described(name, "file", split=None, files=[path.name]))
    require_remote(name, path)
    found, repository, config = hub(name, split or split_default, rows=rows)
    description = described(repository, "hub", config=config, split=split or split_default)
    return Table(columns_of_dataset(found), description)


def described(
    source: str,
    kind: str,
    *,
    config: str | None = None,
    split: str | None = None,
    files: Iterable[str] = (),
) -> dict[str, Any]:
    """Where data came from; of an absolute path only its name, since descriptions are saved and shown."""
    name = Path(source).name if Path(os.path.expanduser(source)).is_absolute() else source
    return {"source": name, "kind": kind, "config": config, "split": split, "files": list(files)}


def without_split(source: str) -> tuple[str, str | None]:
    """`NAME@SPLIT` -> name and split, the latter None where there is none.

    Raises:
        DataError: The name or the split is empty.
    """
    if Path(os.path.expanduser(source)).exists() and source:
        return source, None
    name, at, split = source.rpartition("@")
    if not at:
        name, split = source, ""
    if not name or (at and not split):
        raise DataError(f"data source {source!r}: incomplete; write NAME[:CONFIG][@SPLIT], or a file's path")
    return name, split or None


def require_no_split(name: str, split: str | None) -> None:
    """Raise DataError where a split is asked of a file."""
    if split is not None:
        raise DataError(f"{name}: a file has no split {split!r}; leave out '@{split}' or give a folder")


def require_remote(name: str, path: Path) -> None:
    """Raise DataError where a name that is not on this machine looks like a path."""
    if name.startswith((".", "/", "~")) or "\\" in name or extension(path) in TABLES + PLAIN:
        raise DataError(f"{name}: no such file; check the path (the current folder is where it starts)")


def data_files(path: Path, split: str | None, split_default: str) -> list[Path]:
    """The data files of a folder, by name: those that begin with the split; of tables and text, the tables.

    Raises:
        DataError: There is none, or they are of several formats.
    """
    known = sorted(
        file
        for file in path.iterdir()
        if file.is_file() and not file.name.startswith(".") and extension(file) in TABLES + PLAIN
    )
    files = [file for file in known if split is not None and file.name.startswith(split)]
    if split is None:
        files = [file for file in known if file.name.startswith(split_default)] or known
    if not files:
        there = ", ".join(sorted(entry.name for entry in path.iterdir())[:20]) or "nothing"
        wanted = "data file" if split is None else f"data file of split {split!r}"
        raise DataError(f"{path}: no {wanted} (there: {there}); name a file or another split of this folder")
    tables = [file for file in files if extension(file) in TABLES]
    files = tables or files
    kinds = {_format(file) for file in files}
    if len(kinds) > 1:
        found = ", ".join(sorted(kinds))
        raise DataError(f"{path}: files of several formats ({found}); name one file, or keep one format")
    return files


def is_saved(path: Path) -> bool:
    """Whether the folder is a data set written with `save_to_disk`."""
    return (path / "dataset_dict.json").exists() or (path / "state.json").exists()


def saved(path: Path, split: str | None, split_default: str) -> tuple[Any, str | None]:
    """One split of a data set written with `save_to_disk`, and the split's name.

    Raises:
        DataError: It is not whole, or has no such split.
    """
    try:
        data = datasets.load_from_disk(str(path))
    except Exception as failure:
        message = f"{path}: not a whole saved data set ({one_line(failure)}); save it again with save_to_disk"
        raise DataError(message) from failure
    if isinstance(data, datasets.DatasetDict):
        split = split or split_default
        if split not in data:
            raise DataError(
                f"{path}: no split {split!r} (there: {', '.join(data)}); name one of them after '@'"
            )
        data = data[split]
    elif split is not None and split != split_of(data):
        raise DataError(f"{path}: one data set without split {split!r}; leave out '@{split}'")
    return data, split or split_of(data)


def hub(
    name: str, split: str, *, characters: int | None = None, rows: int | None = None
) -> tuple[Any, str, str | None]:
    """A split of `NAME[:CONFIG]` on the hub, or its first rows; with the repository and the config.

    Args:
        name: The repository, and its configuration behind a colon.
        split: Which split.
        characters: Read no more than the first rows that hold this many.
        rows: Read no more than these.

    Raises:
        DataError: It cannot be read.
    """
    repository, _, config = name.partition(":")
    try:
        # Asked first because load_dataset repeats for half a minute where there is no network.
        cached = is_cached(repository)
        if not cached:
            huggingface_hub.HfApi().dataset_info(repository, timeout=10)
        if cached or (characters is None and rows is None):
            data = datasets.load_dataset(repository, config or None, split=split)
        else:
            stream = datasets.load_dataset(repository, config or None, split=split, streaming=True)
            data = _beginning(stream, characters, rows)
    except Exception as failure:
        message = f"{one_line(failure)}; check the name and the connection, or give a local file"
        raise DataError(f"{tried(name, split)}: {message}") from failure
    if rows is not None and len(data) > rows:
        data = data.select(range(rows))
    return data, repository, config or None


def tried(name: str, split: str) -> str:
    """What was asked of the hub, in words."""
    repository, _, config = name.partition(":")
    return f"hub data set {repository!r} (config {config or 'default'}, split {split})"


def split_of(data: Any) -> str | None:
    """The name of a data set's split, where it has one."""
    return None if data.split is None else str(data.split)


def columns_of_dataset(data: Any) -> Columns:
    """The columns of a `datasets.Dataset`."""

    def column(name: str) -> Column:
        is_text = getattr(data.features[name], "dtype", None) in ("string", "large_string", "string_view")
        arrow = data.select_columns([name]).with_format("arrow")
        return Column(is_text, lambda: list(arrow[:].column(name).to_pylist()))

    return {name: column(name) for name in data.column_names}


def one_line(failure: Exception) -> str:
    """An error of a library in at most 200 characters."""
    return " ".join(f"{type(failure).__name__}: {failure}".split())[:200]


def _folder(path: Path, name: str, split: str | None, split_default: str, as_text: tuple[str, ...]) -> Table:
    if is_saved(path):
        data, found = saved(path, split, split_default)
        return Table(columns_of_dataset(data), described(name, "saved data set", split=found))
    files = data_files(path, split, split_default)
    each = [_file(file, as_text) for file in files]
    names = list(each[0])
    for file, other in zip(files, each, strict=True):
        if missing := [column for column in names if column not in other]:
            raise DataError(f"{file}: no column {missing[0]!r}, which {files[0].name} has; name one file")

    def joined(column: str) -> Column:
        return Column(each[0][column].is_text, lambda: [v for one in each for v in one[column].values()])

    description = described(name, "folder", split=split, files=[file.name for file in files])
    return Table({column: joined(column) for column in names}, description)


def _file(path: Path, as_text: tuple[str, ...]) -> Columns:
    if extension(path) not in TABLES:
        raise DataError(f"{path}: not a table; give a file that ends in {', '.join(TABLES)}")
    return columns(path, as_text)


def _format(file: Path) -> str:
    """What must be alike in the files of a folder; .raw and .tokens are."""
    return ".raw" if extension(file) == ".tokens" else extension(file)


def _beginning(rows: Iterable[dict[str, Any]], characters: int | None, most: int | None) -> datasets.Dataset:
    """The first rows, until there are `most` or their text has `characters`: never a whole large data set."""
    taken: list[dict[str, Any]] = []
    read = 0
    for row in rows:
        taken.append(row)
        read += sum(len(str(value)) for value in row.values() if isinstance(value, str | list))
        if (characters is not None and read >= characters) or len(taken) == most:
            break
    return datasets.Dataset.from_list(taken)


def is_cached(repository: str) -> bool:
    """Whether something of this data set of the hub lies in the cache on this machine."""
    folder = Path(datasets.config.HF_DATASETS_CACHE)
    wanted = repository.lower().replace("/", "").replace("_", "")
    return folder.is_dir() and any(e.name.lower().replace("_", "") == wanted for e in folder.iterdir())
