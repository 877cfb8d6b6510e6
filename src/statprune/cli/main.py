"""The parser, and the exit codes: 0 done, 1 our own failure, 2 bad input, 130 interrupted, 143 terminated."""

import errno
import os
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from statprune.checkpoint.aside import MAKE_ROOM
from statprune.checkpoint.unfinished import folder_for
from statprune.cli.benchmark import benchmark_command
from statprune.cli.compress import compress_command
from statprune.cli.demo import demo_command
from statprune.cli.evaluate import evaluate_command
from statprune.cli.explore import explore_command
from statprune.cli.export import export_command
from statprune.cli.inspect import inspect_command
from statprune.cli.json_alone import json_alone
from statprune.cli.many import leave, prints, refuse_unshared
from statprune.cli.plan import plan_command
from statprune.cli.push import push_command
from statprune.cli.report import report_command
from statprune.cli.show import as_json, complain, plain_output, printable
from statprune.cli.signals import Stop, stopped_by_signals
from statprune.errors import (
    InputError,
    OutputError,
    ShortOfMemoryError,
    StatpruneError,
    UnknownArchitectureError,
    short_of_memory,
)
from statprune.started import own_number, started_many
from statprune.version import __version__

# What the parser raises for options it cannot read, whichever library lies below typer.
_USAGE = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
INTERRUPTED, TERMINATED = 130, 143

_OF_PATHS = (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EROFS)
"""Failures that are those of a path that was given, wherever they come up."""

app = typer.Typer(
    name="statprune",
    help="Makes trained transformers smaller and faster, without fine-tuning and without gradients.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("inspect")(inspect_command)
app.command("plan")(plan_command)
app.command("compress")(compress_command)
app.command("evaluate")(evaluate_command)
app.command("benchmark")(benchmark_command)
app.command("report")(report_command)
app.command("export")(export_command)
app.command("explore")(explore_command)
app.command("push")(push_command)
app.command("demo")(demo_command)


@app.callback(invoke_without_command=True)
def _root(context: typer.Context, version: bool = typer.Option(False, "--version", help="Show it.")) -> None:
    refuse_unshared(context.invoked_subcommand)
    if version:
        Console().print(f"statprune {__version__}", highlight=False)
        raise typer.Exit


def run(arguments: list[str] | None = None) -> None:
    """Run the command line and leave with its exit code; a traceback is shown only with --debug."""
    given = sys.argv[1:] if arguments is None else arguments
    with stopped_by_signals() as stop, plain_output(), json_alone("--json" in given):
        code = _ended(given, stop)
    sys.exit(code)


def _ended(given: list[str], stop: Stop) -> int:
    try:
        code = app(given, standalone_mode=False)
        if code == INTERRUPTED:  # the parser turns the interrupt into this code
            raise KeyboardInterrupt
    except Exception as error:
        if "--debug" in given:
            if started_many() > 1:
                traceback.print_exception(error)
                leave(getattr(error, "exit_code", 1))
            raise
        code = _report(error, given)
        leave(code)
        return code
    except KeyboardInterrupt:
        stop.ignore()
        code, how = (TERMINATED, "terminated") if stop.terminated else (INTERRUPTED, "interrupted")
        told = f"{how}; nothing half-written is left.{_kept(given)}"
        if own_number() == 0:
            complain(printable(told))
        leave(code)
        return code
    return code if isinstance(code, int) else 0


def _kept(given: list[str]) -> str:
    """Where the state of the run that `given` began is kept, if it is."""
    for option, value in zip(given, [*given[1:], ""], strict=True):
        if option == "--out" or option.startswith("--out="):
            folder = folder_for(Path(value if option == "--out" else option.partition("=")[2]))
            if folder.exists():
                return f" {folder} keeps what was done: go on with --resume."
    return ""


def _report(error: Exception, given: list[str]) -> int:
    if isinstance(error, BrokenPipeError | OutputError) and not _stdout_takes_more():
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):
        return 1
    message, code = _told(error, given)
    if not message or not prints(error):  # without a command, the help has been shown
        return code
    if "--json" in given and own_number() == 0:
        kind = type(error).__name__
        with suppress(OutputError):  # stdout may be what it is about
            as_json({"error": {"kind": kind, "message": message, "exit_code": code}})
    who = f"rank {own_number()}: " if own_number() else ""
    first, *draft = message.split("\n") if isinstance(error, UnknownArchitectureError) else [message]
    complain("\n".join(printable(line) for line in [f"{who}error: {first}", *draft]))
    return code


def _stdout_takes_more() -> bool:
    try:
        sys.stdout.flush()
    except OSError:
        return False
    return True


def _told(error: Exception, given: list[str]) -> tuple[str, int]:
    if isinstance(error, StatpruneError):
        return " ".join([str(error), *getattr(error, "__notes__", ())]), error.exit_code
    if isinstance(error, _USAGE):
        message = str(getattr(error, "format_message", error.__str__)())
        return message + _value(getattr(error, "param", None), given), InputError.exit_code
    if short_of_memory(error):
        first = (str(error).strip().splitlines() or [""])[0]
        return f"{ShortOfMemoryError('memory is short.')} {first}".strip(), ShortOfMemoryError.exit_code
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return f"a file could not be written: {error}. {MAKE_ROOM}", OutputError.exit_code
    if isinstance(error, OSError) and error.filename is not None and error.errno in _OF_PATHS:
        return f"{error.filename}: {error.strerror}. Check the path and its rights.", InputError.exit_code
    told = " ".join(f"{type(error).__name__}: {error}".split())
    return f"{told} (ours to mend; run again with --debug and report it)", 1


def _value(parameter: Any, given: list[str]) -> str:
    """What was given for an option that the parser could not read: it names the option alone."""
    for position, argument in enumerate(given):
        name, equals, value = argument.partition("=")
        if name in getattr(parameter, "opts", ()):
            return f" ({value if equals else given[position + 1]!r} was given)"
    return ""
