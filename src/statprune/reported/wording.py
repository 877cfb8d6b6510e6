"""Values in words: numbers to the digits that a reader needs, and nothing that a page cannot show."""

import json
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from statprune.byte_size import byte_size

MISSING = "not recorded"


def clean(content: Any) -> Any:
    """JSON content whose texts, names too, any file can hold: without control characters and half pairs."""
    if isinstance(content, str):
        whole = content.encode("utf-8", "replace").decode("utf-8")
        return "".join(each if each.isprintable() or each in " \n\t" else "\ufffd" for each in whole)
    if isinstance(content, Mapping):
        return {clean(str(name)): clean(value) for name, value in content.items()}
    if isinstance(content, Sequence):
        return [clean(each) for each in content]
    return content


def number(value: Any) -> float | None:
    """A finite number, or None for all else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if isfinite(value) else None
    except OverflowError:
        return None


def at(content: Any, *path: str) -> Any:
    """What lies at a path of names; None where there is nothing."""
    for name in path:
        content = content.get(name) if isinstance(content, Mapping) else None
    return content


def short(text: str, most: int = 28) -> str:
    """A text that fits into a figure."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def headed(text: str) -> str:
    """A text as a heading: its first letter large, the rest as it is."""
    return text[:1].upper() + text[1:]


def whole(value: float | None) -> str:
    """A count, its thousands apart."""
    return MISSING if value is None else f"{value:,.0f}"


def count(value: float | None) -> str:
    """A count to three digits: 3.38 million."""
    if value is None:
        return MISSING
    for size, name in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if value >= size:
            return f"{value / size:.3g} {name}"
    return f"{value:,.0f}"


def size(value: float | None) -> str:
    """Bytes in words."""
    return MISSING if value is None else byte_size(value)


def seconds(value: float | None) -> str:
    """Time, to three digits."""
    if value is None:
        return MISSING
    if value < 0.1:
        return f"{1000 * value:.3g} ms"
    if value < 120:
        return f"{value:.3g} s"
    if value < 7200:
        return f"{value / 60:.3g} min"
    return f"{value / 3600:.3g} h"


def percent(value: float | None) -> str:
    """A share as per cent."""
    return MISSING if value is None else f"{100 * value:.1f}%"


def plain(value: float | None) -> str:
    """Any other number, to four digits."""
    if value is None:
        return MISSING
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) >= 10 else f"{value:.4g}"


def told(value: Any) -> str:
    """Any JSON value in a line: of a mapping what is not null, white space as it is written in JSON."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {told(each)}" for name, each in value.items() if each is not None)
    if isinstance(value, str):
        return value if value.strip() == value != "" else json.dumps(value, ensure_ascii=False)
    if isinstance(value, Sequence):
        return ", ".join(told(each) for each in value) or "none"
    if value is None:
        return "none"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def texts(content: Any) -> list[Any]:
    """The members of a list; none where it is no list."""
    return list(content) if isinstance(content, Sequence) and not isinstance(content, str) else []
