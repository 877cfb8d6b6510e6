"""An architecture entry as a TOML file: the form in which a draft is printed, and your own is given.

The keys are those of `parts.py`. A part is a table; one that stays whole is `{ unprunable = "the reason" }`.
Several `feed_forward` tables of a stack are alternatives.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args

from statprune.anatomy.parts import (
    Architecture,
    Attention,
    Context,
    Experts,
    FeedForward,
    Kind,
    Order,
    Quantity,
    Stack,
    Unprunable,
    Widths,
)
from statprune.errors import ModelError

_PARTS: dict[str, Any] = {
    "attention": Attention,
    "cross_attention": Attention,
    "feed_forward": FeedForward,
    "experts": Experts,
    "shared_expert": FeedForward,
    "router": Unprunable,
}

UNKNOWN = "?"
"""What a draft holds where nothing could be recognised."""


def read_entry(path: str | Path) -> Architecture:
    """The entry in the TOML file at `path`.

    Raises:
        ModelError: there is no such file, or it is no entry; names the key.
    """
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}). Give the file of an entry.") from error
    except (ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise ModelError(f"{path} is not TOML: {why}. Start from the draft that an error prints.") from error
    return entry_of(values, str(path))


def entry_of(values: Mapping[str, Any], where: str) -> Architecture:
    """The entry that `values`, a parsed file, describes; `where` begins the names of keys in errors.

    Raises:
        ModelError: a key is missing, unknown, not filled in, or of the wrong kind.
    """
    given = dict(values)
    stacks = given.pop("stacks", None)
    if not isinstance(stacks, list) or not stacks:
        raise ModelError(f"{where}: stacks is {_kind(stacks)}; give at least one [[stacks]] table.")
    given["stacks"] = tuple(_stack(each, f"{where}: stacks[{number}]") for number, each in enumerate(stacks))
    if "context" in given:
        given["context"] = _made(Context, given["context"], f"{where}: context")
    entry: Architecture = _made(Architecture, given, where)
    _require_one_of(entry.kind, get_args(Kind), f"{where}: kind")
    return entry


def _stack(values: Any, where: str) -> Stack:
    given = {"feed_forward": None, **_table(values, where)}
    given["widths"] = _made(Widths, given.get("widths", {}), f"{where}: widths")
    for part, kind in _PARTS.items():
        each = given.get(part)
        if isinstance(each, list):
            given[part] = tuple(
                _made(kind, one, f"{where}: {part}[{number}]") for number, one in enumerate(each)
            )
        elif each is not None:
            given[part] = _part(kind, each, f"{where}: {part}")
    stack: Stack = _made(Stack, given, where)
    for attention in (stack.attention, stack.cross_attention):
        if isinstance(attention, Attention):
            _require_one_of(attention.fused, (None, *get_args(Order)), f"{where}: fused")
            for path, quantity in attention.follows.items():
                _require_one_of(quantity, get_args(Quantity), f"{where}: follows.{path}")
    return stack


def _part(kind: Any, values: Any, where: str) -> Any:
    table = _table(values, where)
    return (
        _made(Unprunable, {"reason": table["unprunable"]}, where)
        if "unprunable" in table
        else _made(kind, table, where)
    )


def _made(kind: Any, values: Any, where: str) -> Any:
    table = _table(values, where)
    known = {field.name: field for field in fields(kind)}
    wrong = sorted(set(table) - set(known))
    if wrong:
        raise ModelError(f"{where}: {wrong[0]} is no key; known are {', '.join(known)}.")
    missing = [
        name
        for name, field in known.items()
        if name not in table and field.default is MISSING and field.default_factory is MISSING
    ]
    if missing:
        raise ModelError(f"{where}: {missing[0]} is missing. Add it.")
    return kind(
        **{name: _value(value, f"{where}: {name}", str(known[name].type)) for name, value in table.items()}
    )


def _value(value: Any, where: str, kind: str) -> Any:
    """The value, a list made a tuple, if it is of the kind that the field's annotation names."""
    if (
        value is None
        or is_dataclass(value)
        or (isinstance(value, tuple) and any(is_dataclass(each) for each in value))
    ):
        return value
    if isinstance(value, list):
        value = tuple(tuple(each) if isinstance(each, list) else each for each in value)
    if _holds_unknown(value):
        raise ModelError(f"{where} is {UNKNOWN!r}. Fill it in.")
    wanted = next((each for name, each in _KINDS if name in kind), None)
    if wanted is not None and not isinstance(value, wanted):
        raise ModelError(f"{where} is {value!r}; give {_SAID[wanted]}.")
    return value


def _holds_unknown(value: Any) -> bool:
    return value == UNKNOWN or (isinstance(value, tuple) and any(_holds_unknown(each) for each in value))


def _table(values: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(values, Mapping):
        raise ModelError(f"{where} is {_kind(values)}; give a table.")
    return values


def _kind(value: Any) -> str:
    return "a table" if isinstance(value, Mapping) else "missing" if value is None else repr(value)


def _require_one_of(value: Any, known: tuple[Any, ...], where: str) -> None:
    if value not in known:
        said = ", ".join(str(each) for each in known if each is not None)
        raise ModelError(f"{where} is {value!r}; choose one of {said}.")


# The first of these names that an annotation holds says of what kind the value is: what holds others first.
_KINDS: tuple[tuple[str, type], ...] = (
    ("Mapping", Mapping),
    ("tuple", tuple),
    ("Literal", str),
    ("bool", bool),
    ("int", int),
    ("str", str),
)
_SAID: dict[type, str] = {
    tuple: "a list",
    Mapping: "a table",
    bool: "true or false",
    int: "a whole number",
    str: "a text",
}
