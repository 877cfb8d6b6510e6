"""SOURCE → records: texts from the hub, a file, a folder or memory, and where they came from."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import datasets
import huggingface_hub

from statprune.calibration.cells import Text, TextColumn, kind_of, names_of, text_columns, text_of, texts_of
from statprune.calibration.formats import (
    PLAIN,
    TABLES,
    Column,
    Columns,
    columns,
    columns_of_rows,
    extension,
    plain_text,
)
from statprune.errors import DataError

JOIN = "\n\n"

Layout = Literal["records", "document", "wikitext"]


@dataclass(frozen=True)
class Records:
    r"""Texts, in the order of their source, and a description that can be written as JSON.

    Attributes:
        texts: Strings, pairs of strings, or token ids (only from memory), all of one kind.
        description: source, kind, config, split, files, text_column, records (their count), join.
        layout: 'records' one text a record; 'document' whole files of prose; 'wikitext' the lines of a
            file with their newline, blank ones as "", so that "\n\n".join gives the text that the usual
            WikiText perplexity protocol reads.
    """

    texts: Sequence[Text]
    description: dict[str, Any]
    layout: Layout = "records"


class _Part(NamedTuple):
    """The texts of one file or data set, its layout, and the column they came from."""

    texts: list[Text]
    layout: Layout
    column: TextColumn


def read(
    source: str,
    *,
    text_column: TextColumn = None,
    tokenizer: Any = None,
    split_default: str = "train",
    characters: int | None = None,
) -> Records:
    """The records of SOURCE: `NAME[:CONFIG][@SPLIT]` on the hub, or a local file or folder `[@SPLIT]`.

    A path that exists is read locally. Files are .jsonl, .json, .csv, .tsv or .parquet (records), .raw or
    .tokens (WikiText's layout) or anything else (plain text, one record a file), each also as .gz, .xz or
    .zst. A folder is a data set saved with `save_to_disk`, or the data files in it, sorted by name: those
    whose names begin with the split, where there are any; of tables and plain text, the tables.

    Args:
        source: What to read.
        text_column: The column, or the two columns of pairs; `text`, `messages` or the only column of
            strings when it is not given.
        tokenizer: Renders chat records (lists of {role, content}) through its chat template.
        split_default: The split of a hub data set or a folder when SOURCE names none.
        characters: Of a hub data set read no more than the first records that hold this many; None for all.

    Raises:
        DataError: There is no such file or data set, it cannot be read, or it holds no text.
    """
    name, split = _without_split(source)
    path = Path(name).expanduser()
    if path.is_dir():
        return _folder(path, name, split, split_default, text_column, tokenizer)
    if path.exists():
        if split is not None:
            raise DataError(f"{name}: a file has no split {split!r}; leave out '@{split}' or give a folder")
        part = _file(path, text_column, tokenizer)
        return _records([part], name, "file", files=[path.name])
    if name.startswith((".", "/", "~")) or "\\" in name or extension(path) in TABLES + PLAIN:
        raise DataError(f"{name}: no such file; check the path (the current folder is where it starts)")
    return _hub(name, split or split_default, text_column, tokenizer, characters)


def from_memory(data: Any, *, text_column: TextColumn = None, tokenizer: Any = None) -> Records:
    """The records of a list of strings, pairs, chats, token ids or mappings, or of a `datasets.Dataset`.

    Raises:
        DataError: The elements are of different kinds or of none of these, or there is no text.
    """
    if isinstance(data, str | Mapping) or not isinstance(data, Iterable):
        kind = type(data).__name__
        raise DataError(f"data in memory: {kind} found; give a list of texts or one split of a data set")
    if isinstance(data, datasets.Dataset):
        part = _part(_columns_of_dataset(data), text_column, tokenizer, "data set in memory")
        return _records([part], "memory", "data set in memory", split=_split_of(data))
    rows = list(data)
    if rows and isinstance(rows[0], Mapping):
        rows_as_columns = columns_of_rows([dict(row) for row in rows], "list in memory")
        return _records([_part(rows_as_columns, text_column, tokenizer, "list in memory")], "memory", "list")
    texts = [text_of(row, f"list in memory, record {n}", tokenizer) for n, row in enumerate(rows, start=1)]
    kinds = {kind_of(text) for text in texts}
    if len(kinds) > 1:
        raise DataError(f"list in memory: {' and '.join(sorted(kinds))} are mixed; give records of one kind")
    return _records([_Part(texts, "records", None)], "memory", "list")


def _without_split(source: str) -> tuple[str, str | None]:
    if Path(source).expanduser().exists() and source:
        return source, None
    name, at, split = source.rpartition("@")
    if not at:
        name, split = source, ""
    if not name or (at and not split):
        raise DataError(f"data source {source!r}: incomplete; write NAME[:CONFIG][@SPLIT], or a file's path")
    return name, split or None


def _records(
    parts: Sequence[_Part],
    source: str,
    kind: str,
    *,
    config: str | None = None,
    split: str | None = None,
    files: Sequence[str] = (),
) -> Records:
    texts = [text for part in parts for text in part.texts]
    if not any(_has_content(text) for text in texts):
        raise DataError(f"{source}: {len(texts)} records, but no text in them; give data that is not empty")
    column = parts[0].column
    description = {
        # Only the name of an absolute path: descriptions are saved with the model.
        "source": Path(source).name if Path(source).expanduser().is_absolute() else source,
        "kind": kind,
        "config": config,
        "split": split,
        "files": list(files),
        "text_column": list(column) if isinstance(column, tuple) else column,
        "records": len(texts),
        "join": JOIN,
    }
    return Records(texts, description, parts[0].layout)


def _has_content(text: Text) -> bool:
    return bool(text.strip()) if isinstance(text, str) else any(str(piece).strip() for piece in text)


def _part(table: Columns, text_column: TextColumn, tokenizer: Any, place: str) -> _Part:
    chosen = text_columns(table, text_column, place)
    return _Part(texts_of(table, chosen, tokenizer, place), "records", chosen)


def _file(path: Path, text_column: TextColumn, tokenizer: Any) -> _Part:
    if extension(path) in TABLES:
        as_text = names_of(text_column) or ("text",)
        return _part(columns(path, as_text), text_column, tokenizer, str(path))
    text = plain_text(path)
    if extension(path) not in (".raw", ".tokens"):
        return _Part([text], "document", None)
    *lines, rest = text.split("\n")
    rows = [line + "\n" for line in lines] + ([rest] if rest else [])
    return _Part([row if row.strip() else "" for row in rows], "wikitext", None)


def _folder(
    path: Path, name: str, split: str | None, split_default: str, text_column: TextColumn, tokenizer: Any
) -> Records:
    if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
        part, split = _saved(path, split, split_default, text_column, tokenizer)
        return _records([part], name, "saved data set", split=split)
    files = _data_files(path, split, split_default)
    parts: list[_Part] = []
    for file in files:
        parts.append(_file(file, parts[0].column if parts else text_column, tokenizer))
    return _records(parts, name, "folder", split=split, files=[file.name for file in files])


def _data_files(path: Path, split: str | None, split_default: str) -> list[Path]:
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


def _format(file: Path) -> str:
    """What must be alike in the files of a folder; .raw and .tokens are."""
    return ".raw" if extension(file) == ".tokens" else extension(file)


def _saved(
    path: Path, split: str | None, split_default: str, text_column: TextColumn, tokenizer: Any
) -> tuple[_Part, str | None]:
    try:
        data = datasets.load_from_disk(str(path))
    except Exception as failure:
        message = (
            f"{path}: not a whole saved data set ({_one_line(failure)}); save it again with save_to_disk"
        )
        raise DataError(message) from failure
    if isinstance(data, datasets.DatasetDict):
        split = split or split_default
        if split not in data:
            raise DataError(
                f"{path}: no split {split!r} (there: {', '.join(data)}); name one of them after '@'"
            )
        data = data[split]
    elif split is not None and split != _split_of(data):
        raise DataError(f"{path}: one data set without split {split!r}; leave out '@{split}'")
    return _part(_columns_of_dataset(data), text_column, tokenizer, str(path)), split or _split_of(data)


def _hub(name: str, split: str, text_column: TextColumn, tokenizer: Any, characters: int | None) -> Records:
    repository, _, config = name.partition(":")
    tried = f"hub data set {repository!r} (config {config or 'default'}, split {split})"
    try:
        # Asked first because load_dataset repeats for half a minute where there is no network.
        cached = is_cached(repository)
        if not cached:
            huggingface_hub.HfApi().dataset_info(repository, timeout=10)
        if cached or characters is None:
            data = datasets.load_dataset(repository, config or None, split=split)
        else:
            data = _beginning(
                datasets.load_dataset(repository, config or None, split=split, streaming=True), characters
            )
    except Exception as failure:
        message = f"{tried}: {_one_line(failure)}; check the name and the connection, or give a local file"
        raise DataError(message) from failure
    part = _part(_columns_of_dataset(data), text_column, tokenizer, tried)
    return _records([part], repository, "hub", config=config or None, split=split)


def _beginning(rows: Iterable[dict[str, Any]], characters: int) -> datasets.Dataset:
    """The first rows, until their text has `characters`: a large data set is never downloaded whole."""
    taken: list[dict[str, Any]] = []
    read = 0
    for row in rows:
        taken.append(row)
        read += sum(len(str(value)) for value in row.values() if isinstance(value, str | list))
        if read >= characters:
            break
    return datasets.Dataset.from_list(taken)


def is_cached(repository: str) -> bool:
    """Whether something of this data set of the hub lies in the cache on this machine."""
    folder = Path(datasets.config.HF_DATASETS_CACHE)
    wanted = repository.lower().replace("/", "").replace("_", "")
    return folder.is_dir() and any(e.name.lower().replace("_", "") == wanted for e in folder.iterdir())


def _one_line(failure: Exception) -> str:
    return " ".join(f"{type(failure).__name__}: {failure}".split())[:200]


def _split_of(data: Any) -> str | None:
    return None if data.split is None else str(data.split)


def _columns_of_dataset(data: Any) -> Columns:
    def column(name: str) -> Column:
        is_text = getattr(data.features[name], "dtype", None) in ("string", "large_string", "string_view")
        arrow = data.select_columns([name]).with_format("arrow")
        return Column(is_text, lambda: list(arrow[:].column(name).to_pylist()))

    return {name: column(name) for name in data.column_names}
