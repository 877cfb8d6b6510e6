"""SOURCE → records: texts from the hub, a file, a folder or memory, and where they came from."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import datasets

from statprune.calibration.cells import Text, TextColumn, kind_of, names_of, text_columns, text_of, texts_of
from statprune.calibration.formats import (
    TABLES,
    Columns,
    columns,
    columns_of_rows,
    extension,
    plain_text,
)
from statprune.calibration.sources import (
    columns_of_dataset,
    data_files,
    described,
    hub,
    is_saved,
    require_no_split,
    require_remote,
    saved,
    split_of,
    tried,
    without_split,
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
    rows: int | None = None,
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
        rows: Of a hub data set read no more than the first; None for all.

    Raises:
        DataError: There is no such file or data set, it cannot be read, or it holds no text.
    """
    name, split = without_split(source)
    path = Path(os.path.expanduser(name))
    if path.is_dir():
        return _folder(path, name, split, split_default, text_column, tokenizer)
    if path.exists():
        require_no_split(name, split)
        part = _file(path, text_column, tokenizer)
        return _records([part], name, "file", files=[path.name])
    require_remote(name, path)
    split = split or split_default
    data, repository, config = hub(name, split, characters=characters, rows=rows)
    part = _part(columns_of_dataset(data), text_column, tokenizer, tried(name, split))
    return _records([part], repository, "hub", config=config, split=split)


def from_memory(data: Any, *, text_column: TextColumn = None, tokenizer: Any = None) -> Records:
    """The records of a list of strings, pairs, chats, token ids or mappings, or of a `datasets.Dataset`.

    Raises:
        DataError: The elements are of different kinds or of none of these, or there is no text.
    """
    if isinstance(data, str | Mapping) or not isinstance(data, Iterable):
        kind = type(data).__name__
        raise DataError(f"data in memory: {kind} found; give a list of texts or one split of a data set")
    if isinstance(data, datasets.Dataset):
        part = _part(columns_of_dataset(data), text_column, tokenizer, "data set in memory")
        return _records([part], "memory", "data set in memory", split=split_of(data))
    rows = list(data)
    if rows and isinstance(rows[0], Mapping):
        rows_as_columns = columns_of_rows([dict(row) for row in rows], "list in memory")
        return _records([_part(rows_as_columns, text_column, tokenizer, "list in memory")], "memory", "list")
    texts = [text_of(row, f"list in memory, record {n}", tokenizer) for n, row in enumerate(rows, start=1)]
    kinds = {kind_of(text) for text in texts}
    if len(kinds) > 1:
        raise DataError(f"list in memory: {' and '.join(sorted(kinds))} are mixed; give records of one kind")
    return _records([_Part(texts, "records", None)], "memory", "list")


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
        **described(source, kind, config=config, split=split, files=files),
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
    if is_saved(path):
        data, split = saved(path, split, split_default)
        part = _part(columns_of_dataset(data), text_column, tokenizer, str(path))
        return _records([part], name, "saved data set", split=split)
    files = data_files(path, split, split_default)
    parts: list[_Part] = []
    for file in files:
        parts.append(_file(file, parts[0].column if parts else text_column, tokenizer))
    return _records(parts, name, "folder", split=split, files=[file.name for file in files])
