"""One data file on disk: its text, or its columns."""

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as arrow_csv
from pyarrow import parquet

from statprune.calibration.packed import COMPRESSIONS, unpacked
from statprune.errors import DataError

TABLES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
PLAIN = (".txt", ".raw", ".tokens")


@dataclass(frozen=True)
class Column:
    """A column that is loaded when it is asked for.

    Attributes:
        is_text: Whether its cells are strings, as far as its type or its first cell tells.
        values: Loads its cells, in order.
    """

    is_text: bool
    values: Callable[[], list[Any]]


Columns = dict[str, Column]


def extension(path: Path) -> str:
    """The format's extension in small letters, without the compression's: '.jsonl' of 'a.JSONL.gz'."""
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() if suffix in COMPRESSIONS else suffix


def plain_text(path: Path) -> str:
    """The text of a file, verbatim: no newline is translated, nothing is stripped.

    Raises:
        DataError: The file is damaged or is not UTF-8.
    """
    return _decoded(_content(path), path)


def columns(path: Path, as_text: Sequence[str]) -> Columns:
    """The columns of a .jsonl, .json, .csv, .tsv or .parquet file, compressed or not.

    Args:
        path: The file.
        as_text: Columns whose cells are text although they may look like numbers or dates (CSV, TSV).

    Raises:
        DataError: The file is empty, damaged, not UTF-8, or not of the format its name promises.
    """
    if extension(path) == ".parquet":
        return _parquet(path)
    content = _content(path)
    if not content.strip():
        raise DataError(f"{path}: the file is empty; give a file with at least one record")
    if extension(path) in (".csv", ".tsv"):
        return _csv(content, path, as_text)
    if extension(path) == ".jsonl":
        return columns_of_rows(_json_lines(content, path), str(path))
    return columns_of_rows(_json(content, path), str(path))


def columns_of_rows(rows: Sequence[Any], place: str) -> Columns:
    """The columns of a list of mappings; a bare string is a record with the one column 'text'.

    Raises:
        DataError: A row is neither a mapping nor a string.
    """
    records: list[dict[str, Any]] = []
    names: dict[str, Any] = {}
    for number, row in enumerate(rows, start=1):
        record = {"text": row} if isinstance(row, str) else row
        if not isinstance(record, dict):
            kind = type(row).__name__
            raise DataError(
                f"{place}, record {number}: {kind} found; a record is an object with named columns"
            )
        records.append(record)
        for name, value in record.items():
            if names.get(name) is None:
                names[name] = value

    def values_of(name: str) -> Callable[[], list[Any]]:
        return lambda: [record.get(name) for record in records]

    return {name: Column(isinstance(first, str), values_of(name)) for name, first in names.items()}


def _content(path: Path) -> bytes:
    """The bytes of a file, decompressed; a compressed file that breaks off is an error, not a short file."""
    try:
        packed = path.read_bytes()
    except OSError as failure:
        raise DataError(
            f"{path}: cannot be read: {failure.strerror}; check the path and its rights"
        ) from failure
    return unpacked(packed, path)


def _decoded(content: bytes, path: Path, offset: int = 0) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as failure:
        place = f"{path}, byte {offset + failure.start}"
        value = f"0x{content[failure.start]:02x}"
        raise DataError(f"{place}: {value} is not UTF-8; convert the file to UTF-8") from failure


def _json_lines(content: bytes, path: Path) -> list[Any]:
    rows, offset = [], 0
    for number, line in enumerate(io.BytesIO(content), start=1):
        text = _decoded(line, path, offset).removeprefix("\ufeff").strip()
        offset += len(line)
        if not text:
            continue
        try:
            rows.append(json.loads(text))
        except (ValueError, RecursionError) as failure:
            message = f"{path}, line {number}: not JSON ({failure}); each line must hold one JSON object"
            raise DataError(message) from failure
    return rows


def _json(content: bytes, path: Path) -> list[Any]:
    try:
        document = json.loads(_decoded(content, path).removeprefix("\ufeff"))
    except (ValueError, RecursionError) as failure:
        # Only JSON lines go on with a new object where the first document ends.
        if isinstance(failure, json.JSONDecodeError) and failure.msg == "Extra data":
            return _json_lines(content, path)
        line = getattr(failure, "lineno", 1)
        message = f"{path}, line {line}: not JSON ({failure}); give a list of objects or one object a line"
        raise DataError(message) from failure
    if isinstance(document, list):
        return document
    if not isinstance(document, dict):
        kind = type(document).__name__
        raise DataError(f"{path}: {kind} found; give a list of objects, or an object with one list in it")
    lists = {name: value for name, value in document.items() if isinstance(value, list)}
    if len(lists) > 1:
        found = ", ".join(lists)
        raise DataError(
            f"{path}: {len(lists)} lists ({found}), and which holds the records is not clear; keep one"
        )
    if not lists or "messages" in lists:
        return [document]
    return next(iter(lists.values()))


def _csv(content: bytes, path: Path, as_text: Sequence[str]) -> Columns:
    _decoded(content, path)
    delimiter = "\t" if extension(path) == ".tsv" else ","
    # One block: Arrow fixes the types of the columns by the first block, and fails on what comes later.
    block = min(len(content) + 1, 2**31 - 1)
    try:
        table = arrow_csv.read_csv(
            pa.BufferReader(content),
            read_options=arrow_csv.ReadOptions(block_size=block),
            parse_options=arrow_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=arrow_csv.ConvertOptions(column_types={name: pa.string() for name in as_text}),
        )
    except pa.ArrowException as failure:
        message = " ".join(str(failure).split())[:200]
        raise DataError(
            f"{path}: {message}; the first line must name the columns, quotes must close"
        ) from failure
    names = table.column_names
    return {
        name: Column(_is_text(table.schema.types[place]), table.column(place).to_pylist)
        for place, name in enumerate(names)
    }


def _parquet(path: Path) -> Columns:
    whole = path if path.suffix.lower() not in COMPRESSIONS else pa.BufferReader(_content(path))
    try:
        file = parquet.ParquetFile(whole)
    except (pa.ArrowException, OSError) as failure:
        message = " ".join(str(failure).split())[:200]
        raise DataError(f"{path}: not a whole parquet file ({message}); fetch or write it again") from failure

    def values_of(name: str) -> Callable[[], list[Any]]:
        return lambda: list(file.read(columns=[name]).column(name).to_pylist())

    return {field.name: Column(_is_text(field.type), values_of(field.name)) for field in file.schema_arrow}


def _is_text(kind: Any) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))
