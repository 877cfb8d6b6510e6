"""An output that is whole or not there: written beside its place, and given its name at the end."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from statprune.errors import OutputError

MAKE_ROOM = "Make room there, or give a folder on a disk that can be written to."

_LONGEST = 200
"""Bytes of a name: file systems take 255, and a run adds to it."""


def check_output(out: Path) -> None:
    """Raise OutputError if `out` exists or cannot be made; leave nothing behind."""
    require_name(out)
    if os.path.lexists(out):
        raise OutputError(
            f"{out} exists, and nothing is ever overwritten. Give another folder, or remove it."
        )
    parent = out.absolute().parent
    if not parent.is_dir():
        raise OutputError(f"{parent}, where {out.name} is to be written, is no folder. Create it first.")
    trial = parent / f".{out.name}.trial"  # one name, so that the next run removes what a killed one left
    try:
        with suppress(FileExistsError):
            trial.mkdir()
        with suppress(FileNotFoundError):  # another run into `out` has removed it
            trial.rmdir()
    except OSError as error:
        raise OutputError(
            f"{parent} cannot be written to ({trial.name}: {error.strerror}). Give another folder."
        ) from error


def require_name(out: Path) -> None:
    """Raise OutputError where `out` ends in `..`, or is named as nothing can be."""
    try:
        os.lstat(out)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise OutputError(f"{out} cannot be made: {error.strerror}. Give another folder.") from error
    if len(os.fsencode(out.name)) > _LONGEST:
        raise OutputError(
            f"{out} has a name of more than {_LONGEST} bytes, and what is written beside it a longer one. "
            f"Give a shorter one."
        )
    if out.name == "..":
        raise OutputError(f"{out} names a folder that is there, or none. Give the new folder a name.")


def require_outside(out: str | Path | None, model: Any) -> None:
    """Raise OutputError where `out` lies in the folder `model`, which a run leaves as it is."""
    if out is None or not isinstance(model, str | Path) or not Path(model).is_dir():
        return
    folder, wanted = Path(os.path.realpath(model)), Path(os.path.realpath(out))
    if wanted != folder and wanted.is_relative_to(folder) and (folder / "config.json").exists():
        raise OutputError(f"{out} lies in {model}, the model that is read. Give a folder elsewhere.")


@contextmanager
def aside(out: Path, within: Path | None = None) -> Iterator[Path]:
    """A name beside `out` to write a file or a folder to; renamed to `out` if all went well, else removed.

    `within` is a folder on the same disk, for a name there. What is written is on the disk, not only on its
    way there, before it gets its name.

    Raises:
        OutputError: `out` exists, cannot be made, or appeared meanwhile.
    """
    check_output(out)
    partial = _partial(out) if within is None else within / "output.partial"
    try:
        _remove(partial)
        yield partial
        for path in (partial, *partial.rglob("*")):
            flush(path)
        if os.path.lexists(out):
            raise OutputError(f"{out} appeared meanwhile, and nothing is ever overwritten.")
        partial.rename(out)
        flush(out.absolute().parent)
    except (OSError, SafetensorError) as error:
        raise OutputError(
            f"{out} could not be written: {error}. Nothing was left behind. {MAKE_ROOM}"
        ) from error
    finally:
        _remove(partial)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _partial(out: Path) -> Path:
    return out.absolute().parent / f".{out.name}.{secrets.token_hex(4)}.partial"


def flush(path: Path) -> None:
    """Bring what was written to the disk; of a folder, the names in it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
