"""An output that is whole or not there: written beside its place, and given its name at the end."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from statprune.errors import OutputError


def check_output(out: Path) -> None:
    """Raise OutputError if `out` exists or cannot be made; leave nothing behind."""
    if os.path.lexists(out):
        raise OutputError(
            f"{out} exists, and nothing is ever overwritten. Give another folder, or remove it."
        )
    parent = out.absolute().parent
    if not parent.is_dir():
        raise OutputError(f"{parent}, where {out.name} is to be written, is no folder. Create it first.")
    trial = _partial(out)
    try:
        trial.mkdir()
        trial.rmdir()
    except OSError as error:
        raise OutputError(
            f"{parent} cannot be written to ({error.strerror}). Give another folder."
        ) from error


@contextmanager
def aside(out: Path) -> Iterator[Path]:
    """A name beside `out` to write a file or a folder to; renamed to `out` if all went well, else removed.

    What is written is on the disk, not only on its way there, before it gets its name.

    Raises:
        OutputError: `out` exists, cannot be made, or appeared meanwhile.
    """
    check_output(out)
    partial = _partial(out)
    try:
        yield partial
        for path in (partial, *partial.rglob("*")):
            _flush(path)
        if os.path.lexists(out):
            raise OutputError(f"{out} appeared meanwhile, and nothing is ever overwritten.")
        partial.rename(out)
        _flush(partial.parent)
    except (OSError, SafetensorError) as error:
        raise OutputError(f"{out} could not be written: {error}. Nothing was left behind.") from error
    finally:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)


def _partial(out: Path) -> Path:
    return out.absolute().parent / f".{out.name}.{secrets.token_hex(4)}.partial"


def _flush(path: Path) -> None:
    """Of a folder, the names in it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
