"""What commands print: tables for people, one JSON object for machines."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import Any

from rich.console import Console
from rich.table import Table


def quieten_libraries() -> None:
    """A command shows its own progress; of the libraries below only errors are for its user."""
    import datasets  # noqa: PLC0415 - help and version do without, and start at once
    import transformers  # noqa: PLC0415

    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()


def as_json(content: Any) -> None:
    """Print `content` as JSON on stdout, where with --json nothing else is printed (cli/json_alone.py).

    Numbers that JSON does not have, NaN and infinities, become null.
    """
    write = getattr(sys.stdout, "result", sys.stdout.write)
    write(json.dumps(_finite(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _finite(content: Any) -> Any:
    if isinstance(content, float):
        return content if isfinite(content) else None
    if isinstance(content, Mapping):
        return {name: _finite(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return content


def say(text: str = "") -> None:
    """Print a line for people."""
    Console(soft_wrap=True).print(text, highlight=False, markup=False)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; every column but the first is aligned to the right."""
    made = Table(title=title, title_justify="left", title_style="bold")
    for number, column in enumerate(columns):
        made.add_column(column, justify="right" if number else "left")
    for row in rows:
        made.add_row(*row)
    Console().print(made)


def show_protocol(protocol: Mapping[str, Any]) -> None:
    """Print what a number depends on, a line a fact."""
    for name, value in protocol.items():
        if isinstance(value, Mapping):
            told = ", ".join(f"{key} {what!r}" for key, what in value.items() if what is not None)
        else:
            told = str(value) if str(value).strip() else repr(value)
        say(f"  {name}: {told}")


def span(values: Sequence[float], show: Callable[[float], str] = str) -> str:
    """Least and most of several numbers, or the one that all of them are."""
    least, most = show(min(values)), show(max(values))
    return least if least == most else f"{least} to {most}"


def size(number: float) -> str:
    """Bytes, in the unit that fits."""
    for unit in ("B", "kB", "MB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.2f} GB"


def count(number: float) -> str:
    """A number with its thousands apart."""
    return f"{number:,.0f}"
