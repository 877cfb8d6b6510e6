"""What every target of an export needs: its library, and an output that is whole or not there."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from statprune.checkpoint.save import check_output
from statprune.errors import InputError, OutputError


def require_library(library: str, extra: str) -> None:
    """Raise InputError, naming the extra that brings it, if `library` is not installed."""
    if find_spec(library) is None:
        raise InputError(
            f"this export needs the library {library}, which is not installed. "
            f"Install it with `pip install 'statprune[{extra}]'`."
        )


@contextmanager
def aside(out: Path) -> Iterator[Path]:
    """A name beside `out` to write a file or a folder to; renamed to `out` if all went well, else removed.

    Raises:
        OutputError: `out` exists, cannot be made, or appeared meanwhile.
    """
    check_output(out)
    partial = out.absolute().parent / f".{out.name}.{secrets.token_hex(4)}.partial"
    try:
        yield partial
        _flush(partial)
        if os.path.lexists(out):
            raise OutputError(f"{out} appeared during the export, and nothing is ever overwritten.")
        partial.rename(out)
    except OSError as error:
        raise OutputError(f"{out} could not be written: {error}. Nothing was left behind.") from error
    finally:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)


def _flush(written: Path) -> None:
    for path in (written, *written.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
