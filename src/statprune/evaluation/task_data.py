"""What the caller gives -> the rows or the texts of a task."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets

from statprune.calibration.formats import Columns, columns_of_rows
from statprune.calibration.records import Records, from_memory, read
from statprune.calibration.sources import Table, columns_of_dataset, described, split_of, table
from statprune.calibration.tokens import single_records
from statprune.errors import DataError
from statprune.evaluation.tasks import Task

Row = dict[str, Any]


@dataclass(frozen=True)
class Rows:
    """Records of a task, each with its number from 1 as '#', and where they came from, ready for JSON."""

    rows: list[Row]
    description: dict[str, Any]


def rows_of(task: Task, data: Any) -> Rows:
    """The rows of a task of classes, scores or spans, with at least its columns.

    Args:
        task: Names the columns, and where its data lies on the hub.
        data: A SOURCE, a list of mappings, a `datasets.Dataset`, or None for the task's own on the hub. The
            JSON of SQuAD's own download is unfolded.

    Raises:
        DataError: It cannot be read, is empty, or lacks a column.
    """
    found = _table(task, data)
    source = str(found.description["source"])
    columns = _unfolded(found.columns, source) if "paragraphs" in found.columns else found.columns
    wanted = [*task.columns, task.label]
    if not columns:
        raise DataError(f"{source}: empty; {task.name} needs at least one record")
    if missing := [name for name in wanted if name not in columns]:
        there = ", ".join(columns)
        raise DataError(
            f"{source}: no column {missing[0]!r}; {task.name} reads {', '.join(wanted)}; there are {there}"
        )
    names = [*wanted, *(["id"] if "id" in columns else [])]
    cells = [columns[name].values() for name in names]
    rows = [
        {"#": number, **dict(zip(names, row, strict=True))}
        for number, row in enumerate(zip(*cells, strict=True), start=1)
    ]
    if not rows:
        raise DataError(f"{source}: empty; {task.name} needs at least one record")
    for row in rows:
        for name in task.columns:
            if not isinstance(row[name], str):
                value = "null" if row[name] is None else f"{type(row[name]).__name__} {str(row[name])[:40]!r}"
                raise DataError(
                    f"{source}, record {row['#']}: column {name!r} holds {value}, not text; drop the record"
                )
    return Rows(rows, found.description | {"columns": wanted, "records": len(rows)})


def texts_of(task: Task, data: Any, tokenizer: Any) -> Records:
    """The records of a task that reads whole texts, in its layout and with its join.

    Raises:
        DataError: It cannot be read, or holds no text.
    """
    if data is None or isinstance(data, str | Path):
        records = read(
            task.hub if data is None else str(data),
            text_column=task.columns[0],
            tokenizer=tokenizer,
            split_default=task.hub.partition("@")[2],
            rows=task.first_records,
        )
    else:
        records = from_memory(data, text_column=task.columns[0], tokenizer=tokenizer)
    texts = list(records.texts)
    if task.lines and records.layout != "records":
        plain = replace(records, layout="document")
        texts = [text.strip() if isinstance(text, str) else text for text in single_records(plain)]
    texts = texts[: task.first_records]
    description = records.description | {"records": len(texts), "join": task.join}
    return Records(texts, description, records.layout)


def _table(task: Task, data: Any) -> Table:
    if data is None or isinstance(data, str | Path):
        source = task.hub if data is None else str(data)
        return table(source, split_default=task.hub.partition("@")[2], as_text=task.columns)
    if isinstance(data, datasets.Dataset):
        return Table(
            columns_of_dataset(data), described("memory", "data set in memory", split=split_of(data))
        )
    if isinstance(data, str | Mapping) or not isinstance(data, Iterable):
        raise DataError(
            f"data in memory: {type(data).__name__} found; give a list of mappings, one split of a data set, "
            f"or a file's path"
        )
    rows = [dict(row) if isinstance(row, Mapping) else row for row in data]
    return Table(columns_of_rows(rows, "list in memory"), described("memory", "list"))


def _unfolded(columns: Columns, source: str) -> Columns:
    """Articles of SQuAD's own JSON, {title, paragraphs: [{context, qas}]} -> a row a question."""
    rows = []
    try:
        for article in columns["paragraphs"].values():
            for paragraph in article:
                for asked in paragraph["qas"]:
                    answers = asked["answers"]
                    found = {
                        "text": [answer["text"] for answer in answers],
                        "answer_start": [answer["answer_start"] for answer in answers],
                    }
                    context = paragraph["context"]
                    rows.append(
                        {
                            "id": asked["id"],
                            "question": asked["question"],
                            "context": context,
                            "answers": found,
                        }
                    )
    except (KeyError, TypeError) as failure:
        raise DataError(
            f"{source}: not SQuAD's JSON ({type(failure).__name__}: {failure}); each article needs "
            f"paragraphs with context and qas, each of these id, question and answers"
        ) from failure
    return columns_of_rows(rows, source)
