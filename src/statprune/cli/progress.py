"""A run's progress on the command line: bars, occasional lines, or JSON on stderr; besides, a log file."""

import json
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import typer
from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from statprune.errors import OutputError, StatpruneWarning
from statprune.in_words import UNITS, last_error, memory_told, time_left, time_spent, told

if TYPE_CHECKING:
    from statprune.engine.progress import Progress as OnBlock
    from statprune.reports import Report, Reporter

MODES = ("auto", "bars", "lines", "json")

SILENT = 10.0
"""Seconds without a line, at first and between two of them."""


@dataclass(frozen=True)
class Shown:
    """How progress is shown: a mode of MODES, or nothing; and where it is logged."""

    mode: str
    log_file: Path | None = None

    @staticmethod
    def of(mode: str, *, quiet: bool, json: bool, log_file: Path | None) -> "Shown":
        """What the options --progress, --quiet, --json and --log-file ask for.

        Raises:
            click.BadParameter: there is no such mode, or --quiet contradicts it.
            OutputError: the log file cannot be written.
        """
        if mode not in MODES:
            raise typer.BadParameter(
                f"{mode!r} is no way to show progress; choose one of {', '.join(MODES)}",
                param_hint="--progress",
            )
        if quiet and mode != "auto":
            raise typer.BadParameter(f"--quiet shows nothing, --progress {mode} does; give one of them")
        if log_file is not None:
            _require_writable(log_file)
        if mode == "auto":
            mode = "bars" if sys.stderr.isatty() else "lines"
            mode = "" if quiet or json else mode
        return Shown(mode, log_file)


@contextmanager
def reporting(shown: Shown) -> "Iterator[OnBlock]":
    """The callback that shows and logs a run's progress."""
    from statprune.engine.progress import no_progress  # noqa: PLC0415 - help does without torch
    from statprune.reports import Reporter  # noqa: PLC0415

    if not shown.mode and shown.log_file is None:
        yield no_progress
        return
    with ExitStack() as around:
        reporter = Reporter()
        if shown.mode == "bars":
            bars = Bars(reporter, Console(stderr=True))
            around.callback(bars.stop)
            reporter.listeners.append(bars.take)
        elif shown.mode == "lines":
            reporter.listeners.append(Lines())
        elif shown.mode == "json":
            reporter.listeners.append(lambda report: _write(sys.stderr, report.to_json()))
        if shown.log_file is not None:
            log = LogFile(shown.log_file)
            around.callback(log.close)
            reporter.listeners.append(log)
        yield reporter


class Bars(Progress):
    """A bar for the run and one for its current stage, and a line with the last error and the memory."""

    def __init__(self, reporter: "Reporter", console: Console) -> None:
        self._reporter, self._last, self._running = reporter, "", False
        self._run: TaskID | None = None
        self._stage: TaskID | None = None
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[count]}"),
            TextColumn("{task.fields[left]}"),
            console=console,
            refresh_per_second=4,
            expand=True,
        )

    def take(self, report: "Report") -> None:
        """Show a report, and the stage that follows."""
        with self._lock:
            if self._run is None:
                self._run = self.add_task("all", total=1.0, count="", left="")
                self._stage = self.add_task("", total=1.0, count="", left="")
            self._last = ", ".join(each for each in (report.trial, last_error(report)) if each)
        if not self._running:
            self._running = True
            self.start()

    def get_renderables(self) -> "Iterator[RenderableType]":
        """The bars as they are now, and the line below them."""
        if self._run is None or self._stage is None:
            return
        spent, left, now = self._reporter.time_left.state()
        share = 0.0 if left is None else spent / max(spent + left, 1e-9)
        told_left = ", ".join(each for each in (time_spent(spent), time_left(left)) if each)
        self.update(self._run, completed=share, count=f"{share:.0%}", left=told_left)
        if now is not None:
            name, done, blocks = now
            count = f"{done}/{blocks}"
            self.update(self._stage, completed=done, total=blocks, description=told(name), count=count)
        else:
            self.update(self._stage, completed=1, total=1, description="done", count="")
        yield self.make_tasks_table(self.tasks)
        line = ", ".join(each for each in (self._last, memory_told(self._reporter.memory())) if each)
        yield Text(line, no_wrap=True, overflow="ellipsis")


class Lines:
    """A line on stderr for a report, but none in the first seconds, and no more than one every few."""

    def __init__(self) -> None:
        self._written = 0.0

    def __call__(self, report: "Report") -> None:
        """Write a line, or none."""
        if report.seconds - self._written < SILENT:
            return
        self._written = report.seconds
        what = UNITS.get(report.stage, "block")
        parts = (
            report.trial,
            f"{told(report.stage)}: {what} {report.done} of {report.blocks}",
            time_spent(report.seconds),
            time_left(report.left),
            last_error(report),
            memory_told(report.memory),
        )
        sys.stderr.write(", ".join(part for part in parts if part) + "\n")
        sys.stderr.flush()


class LogFile:
    """Appends reports to a file, one JSON object with a time a line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[str] | None = None
        self._failed = False

    def __call__(self, report: "Report") -> None:
        """Append a report. A full disk does not end the run; a warning says that the log does.

        Raises:
            OutputError: the file could not be opened at the first report.
        """
        if self._failed:
            return
        if self._file is None:
            try:
                self._file = self._path.open("a", encoding="utf-8")
            except OSError as error:
                raise _unwritable(self._path, error.strerror or str(error)) from error
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        try:
            _write(self._file, {"time": now} | report.to_json())
        except OSError as error:
            self._failed = True
            warnings.warn(f"{self._path}: the log ends here: {error}.", StatpruneWarning, stacklevel=2)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None and not self._failed:
            self._file.close()


def _write(file: IO[str], content: dict[str, Any]) -> None:
    file.write(json.dumps(content) + "\n")
    file.flush()


def _require_writable(path: Path) -> None:
    if path.is_dir():
        raise _unwritable(path, "it is a folder")
    if not path.absolute().parent.is_dir():
        raise _unwritable(path, f"{path.parent} is no folder")
    if not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
        raise _unwritable(path, "permission denied")


def _unwritable(path: Path, why: str) -> OutputError:
    return OutputError(f"log file {path} cannot be written: {why}. Give another file.")
