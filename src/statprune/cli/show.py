"""What commands print: tables for people, one JSON object for machines."""

import json
import sys
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import isfinite
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from statprune.errors import OutputError

_UNPRINTED = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Characters that steer a terminal, turn the direction of a line, end it, or are half a character."""
_JOINERS = "\u200c\u200d"
"""Of these kinds, and part of words and of emoji."""


def printable(text: str) -> str:
    """`text` in one line, whatever names and values are in it: what would steer a terminal is escaped."""
    return "".join(each.encode("unicode_escape").decode() if _steers(each) else each for each in text)


def _steers(each: str) -> bool:
    return unicodedata.category(each) in _UNPRINTED and each not in _JOINERS


@contextmanager
def plain_output() -> Iterator[None]:
    """Within it a warning is one line, and a character that stdout does not have is no failure."""
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")
    before = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: f"warning: {printable(str(message))}\n"
    try:
        yield
    finally:
        warnings.formatwarning = before


def complain(text: str) -> None:
    """Print a line on stderr."""
    Console(stderr=True, soft_wrap=True).print(text, highlight=False, markup=False)


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
    with _on_stdout():
        write(json.dumps(_finite(content), indent=2, allow_nan=False) + "\n")
        sys.stdout.flush()


@contextmanager
def _on_stdout() -> Iterator[None]:
    """Raise OutputError where stdout takes no more."""
    try:
        yield
    except BrokenPipeError:  # whoever reads it has enough
        raise
    except OSError as error:
        raise OutputError(f"stdout cannot be written to: {error.strerror}. Send it elsewhere.") from error


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
    with _on_stdout():
        Console(soft_wrap=True).print(printable(text), highlight=False, markup=False)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; every column but the first is aligned to the right."""
    made = Table(title=Text(printable(title)), title_justify="left", title_style="bold")
    for number, column in enumerate(columns):
        made.add_column(column, justify="right" if number else "left")
    for row in rows:
        made.add_row(*(Text(printable(cell)) for cell in row))
    with _on_stdout():
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


def count(number: float) -> str:
    """A number with its thousands apart."""
    return f"{number:,.0f}"
