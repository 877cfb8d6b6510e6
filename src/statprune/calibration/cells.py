"""Columns → texts: which column holds them, pairs, and chats through the tokenizer's template."""

from collections.abc import Mapping
from typing import Any

from statprune.calibration.formats import Columns
from statprune.errors import DataError

Text = str | tuple[str, str] | tuple[int, ...]
TextColumn = str | tuple[str, str] | None


def text_columns(columns: Columns, wanted: TextColumn, place: str) -> str | tuple[str, str]:
    """The column that holds the texts, or the two that hold pairs.

    Without a wish it is `text`, else `messages`, else the only column of strings.

    Raises:
        DataError: The column is not there, or it is not clear which one is meant.
    """
    if not columns:
        raise DataError(f"{place}: no records; give data that is not empty")
    there = ", ".join(columns)
    if wanted is not None:
        for name in names_of(wanted):
            if name not in columns:
                raise DataError(f"{place}: no column {name!r}; choose a text column among: {there}")
        return wanted
    strings = [name for name, column in columns.items() if column.is_text]
    for name in ("text", "messages"):
        if name in columns:
            return name
    if len(strings) == 1:
        return strings[0]
    message = f"{place}: {len(strings)} columns of strings and none is named 'text'"
    raise DataError(f"{message}; name the text column, or two for pairs, among: {there}")


def texts_of(columns: Columns, chosen: str | tuple[str, str], tokenizer: Any, place: str) -> list[Text]:
    """The texts of the chosen column, or the pairs of the chosen two, in order.

    Raises:
        DataError: A cell is null or no text, with the number of its record, counted from 1.
    """
    if isinstance(chosen, str):
        cells = columns[chosen].values()
        return [
            _cell(cell, f"{place}, record {n}", chosen, tokenizer) for n, cell in enumerate(cells, start=1)
        ]
    first, second = (columns[name].values() for name in chosen)
    return [
        (_string(a, f"{place}, record {n}", chosen[0]), _string(b, f"{place}, record {n}", chosen[1]))
        for n, (a, b) in enumerate(zip(first, second, strict=True), start=1)
    ]


def text_of(element: Any, place: str, tokenizer: Any) -> Text:
    """The text of one element of a list: a string, a pair of strings, a chat, or token ids.

    Raises:
        DataError: It is none of these.
    """
    if isinstance(element, str):
        return element
    row = element.tolist() if hasattr(element, "tolist") else element
    if _is_chat(row):
        return _rendered(row, place, tokenizer)
    if isinstance(row, list | tuple) and row:
        if len(row) == 2 and isinstance(row[0], str) and isinstance(row[1], str):
            return (row[0], row[1])
        if all(isinstance(token, int) and not isinstance(token, bool) for token in row):
            return tuple(row)
    kind = type(element).__name__
    raise DataError(f"{place}: {kind} found; give a string, two strings, a chat or a list of token ids")


def kind_of(text: Text) -> str:
    """'texts', 'pairs' or 'token ids'."""
    if isinstance(text, str):
        return "texts"
    return "pairs" if isinstance(text[0], str) else "token ids"


def names_of(wanted: TextColumn) -> tuple[str, ...]:
    """The wanted column names as a tuple, empty where none is wanted.

    Raises:
        DataError: There are more than two.
    """
    names = () if wanted is None else (wanted,) if isinstance(wanted, str) else tuple(wanted)
    if len(names) > 2 or (wanted is not None and not names):
        raise DataError(f"text column: {len(names)} names given; give one, or two for pairs")
    return names


def _string(cell: Any, place: str, column: str) -> str:
    if isinstance(cell, str):
        return cell
    found = "null" if cell is None else f"{type(cell).__name__} {str(cell)[:40]!r}"
    raise DataError(
        f"{place}: column {column!r} holds {found}, not text; drop the record or choose another column"
    )


def _cell(cell: Any, place: str, column: str, tokenizer: Any) -> Text:
    return _rendered(cell, place, tokenizer) if _is_chat(cell) else _string(cell, place, column)


def _is_chat(cell: Any) -> bool:
    return (
        isinstance(cell, list | tuple)
        and bool(cell)
        and all(isinstance(turn, Mapping) and "role" in turn and "content" in turn for turn in cell)
    )


def _rendered(chat: Any, place: str, tokenizer: Any) -> str:
    if tokenizer is None:
        raise DataError(
            f"{place}: a chat, and the tokenizer is missing; pass the tokenizer whose template renders it"
        )
    if not getattr(tokenizer, "chat_template", None):
        message = f"{place}: a chat, and the tokenizer {type(tokenizer).__name__} has no chat template"
        raise DataError(f"{message}; set tokenizer.chat_template, or give the chats as plain text")
    try:
        return str(tokenizer.apply_chat_template([dict(turn) for turn in chat], tokenize=False))
    except Exception as failure:
        # Templates are programs of the model's authors: they raise what they like.
        reason = " ".join(f"{type(failure).__name__}: {failure}".split())[:200]
        raise DataError(
            f"{place}: the chat template refuses this chat ({reason}); mend or drop the record"
        ) from failure
