"""What commands print: tables and progress for people, one JSON object for machines."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as Remaining
from rich.table import Table

if TYPE_CHECKING:
    from statprune.engine.stat import Progress as OnBlock

STAGES = {
    "measure": "measuring the dense model",
    "prune": "cutting neurons and heads",
    "survey": "measuring errors and damage",
    "refit": "choosing and refitting",
    "search": "trying plans",
}


def quieten_libraries() -> None:
    """A command shows its own progress; of the libraries below only errors are for its user."""
    import datasets  # noqa: PLC0415 - help and version do without, and start at once
    import transformers  # noqa: PLC0415

    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()


def as_json(content: Any) -> None:
    """Print `content` as JSON on stdout."""
    sys.stdout.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


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


def count(number: float) -> str:
    """A number with its thousands apart."""
    return f"{number:,.0f}"


@contextmanager
def block_progress(*, shown: bool) -> "Iterator[OnBlock]":
    """A bar per stage on stderr, a step per block; nothing at all before the first step."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    bars = Progress(*columns, Remaining(), console=Console(stderr=True), disable=not shown)
    tasks: dict[str, Any] = {}

    def on_block(stage: str, done: int, blocks: int) -> None:
        if not tasks:
            bars.start()
        if stage not in tasks:
            tasks[stage] = bars.add_task(f"{STAGES.get(stage, stage)}, block", total=blocks)
        bars.update(tasks[stage], completed=done)

    try:
        yield on_block
    finally:
        if tasks:
            bars.stop()
