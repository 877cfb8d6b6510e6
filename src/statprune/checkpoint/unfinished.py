"""The state of a run on disk, beside its output's final name: what is needed to go on after a kill."""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from statprune.anatomy.shelf import Room, State
from statprune.anatomy.spilled import Spilled
from statprune.checkpoint.aside import MAKE_ROOM, flush
from statprune.checkpoint.finished import FILE as FINISHED
from statprune.checkpoint.offload import Lender
from statprune.checkpoint.read_ahead import ask_for
from statprune.errors import OutputError, RankLostError, ShortOfMemoryError, StatpruneError
from statprune.json_file import json_of

FORMAT = 1
_IDENTITY, _LOCK = "run.json", "lock"
_NOT_AGAIN = OutputError | RankLostError | ShortOfMemoryError
_REMOVE = "Remove it: its block is done again."


def folder_for(out: Path) -> Path:
    """Where the state of a run into `out` is kept."""
    return out.absolute().parent / f"{out.name}.unfinished"


def check_unfinished(out: Path, *, resume: bool) -> None:
    """Refuse to begin where the state of another run lies.

    Raises:
        OutputError: there is one, and it was not asked for.
    """
    folder = folder_for(out)
    if os.path.lexists(folder) and not resume:
        raise OutputError(
            f"{folder} holds the state of a run into {out} that did not end. Go on with it (--resume), or "
            f"remove it."
        )


class Unfinished:
    """Keeps the states of a run in a folder: whole, checked when they are read, or not there.

    Blocks are in memory; or `lender` has them, and when the run is settled, the states.
    """

    def __init__(self, folder: Path, lender: Lender | None = None) -> None:
        self.folder, self.lender = folder, lender
        self.spills = False
        self._settled: str | None = None
        self._begun = False

    @property
    def lends(self) -> bool:
        """Whether blocks have weights only while they are taken."""
        return self.lender is not None

    @property
    def scratch(self) -> Path:
        """A folder for what transformers converts."""
        made = self.folder / "converted"
        made.mkdir(exist_ok=True)
        return made

    def begin(self, identity: Mapping[str, Any]) -> None:
        """Compare `identity`, all that the result depends on, with that of the run that began, if one did.

        Raises:
            OutputError: the folder holds the state of another run; names what differs.
        """
        _check_identity(self, identity)
        shutil.rmtree(self.folder / "streams", ignore_errors=True)  # of a process that was killed
        self._begun = True

    @property
    def begun(self) -> bool:
        """Whether the states are known to be of this run."""
        return self._begun

    def room(self) -> Room:
        """In memory, or in files."""
        if not self.spills:
            return []
        streams = self.folder / "streams"
        streams.mkdir(exist_ok=True)
        return Spilled(streams)

    def settle(self, stage: str) -> None:
        """From now on blocks are what they became in `stage`."""
        self._settled = stage

    def taken(self, index: int) -> AbstractContextManager[None]:
        """Block `index` with its weights at hand."""
        if self.lender is None:
            return nullcontext()
        state = None if self._settled is None else self.earlier(self._settled, index)
        if self._settled is not None:
            ask_for(self._path(self._settled, index + 1))
        return self.lender.taken(index, None if state is None else state.tensors)

    def earlier(self, stage: str, index: int) -> State | None:
        """What was noted of the block in this stage.

        Raises:
            OutputError: it is not what was written.
        """
        path = self._path(stage, index)
        if not path.exists():
            return None
        try:
            with safe_open(path, "pt") as file:
                said = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        except (SafetensorError, OSError) as error:
            raise OutputError(
                f"{path} cannot be read: {error}. Remove it: its block is done again."
            ) from error
        if said.get("digest") != _digest(tensors, said.get("facts", "")):
            raise OutputError(f"{path} is not what was written. {_REMOVE}")
        return State(tensors, json.loads(said["facts"]))

    def note(self, stage: str, index: int, state: State) -> None:
        """Write `state`, whole, before the run goes on.

        Raises:
            OutputError: the disk takes no more; what was there before still is.
        """
        path, facts = self._path(stage, index), json.dumps(state.facts)
        partial = path.with_suffix(".partial")
        tensors = {name: value.detach().cpu().contiguous() for name, value in state.tensors.items()}
        try:
            save_file(tensors, partial, metadata={"facts": facts, "digest": _digest(tensors, facts)})
            flush(partial)
            partial.replace(path)
            flush(self.folder)
        except (OSError, SafetensorError) as error:
            partial.unlink(missing_ok=True)
            raise OutputError(f"{path} could not be written: {error}. {MAKE_ROOM}") from error

    def _path(self, stage: str, index: int) -> Path:
        return self.folder / f"{stage}-{index:05d}.safetensors"

    @property
    def empty(self) -> bool:
        """Whether nothing was noted."""
        return not any(self.folder.glob("*.safetensors"))


@contextmanager
def unfinished(out: Path) -> Iterator[Unfinished]:
    """The states of a run into `out`; removed if it ends well.

    Where it is interrupted, or fails for want of room, they stay.

    Raises:
        OutputError: the folder cannot be made, or another process is at work in it.
    """
    folder = folder_for(out)
    try:
        folder.mkdir(exist_ok=True)
        handle = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise OutputError(f"{folder} cannot be made: {error}.") from error
    shelf = Unfinished(folder)
    try:
        _lock(handle, folder)
        yield shelf
    except _OtherRunError:
        raise
    except BaseException as error:
        # What is wrong with the input, or with the result, would be so again; want of room would not.
        again = isinstance(error, StatpruneError) and not isinstance(error, _NOT_AGAIN)
        if (again and shelf.begun) or shelf.empty:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            error.add_note(f"{folder} keeps what was done: go on with --resume.")
        raise
    else:
        _remove(folder)
    finally:
        os.close(handle)


def _remove(folder: Path) -> None:
    """Remove a state; what says whose it is, and that all was done, at the end."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name not in (_IDENTITY, FINISHED, _LOCK):
            path.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


class _OtherRunError(OutputError):
    """The folder belongs to another run."""


def _lock(handle: int, folder: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise _OtherRunError(
            f"another process is at work in {folder}. Wait for it, or give another output folder."
        ) from error


def _check_identity(shelf: Unfinished, identity: Mapping[str, Any]) -> None:
    path = shelf.folder / _IDENTITY
    content = json.loads(json.dumps({"format": FORMAT, **identity}))
    if not path.exists():
        if not shelf.empty:
            raise _OtherRunError(f"{path} is missing. Remove {shelf.folder}.")
        partial = path.with_suffix(".partial")
        try:
            partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
            flush(partial)
            partial.replace(path)
        except OSError as error:
            raise OutputError(f"{path} could not be written: {error}. {MAKE_ROOM}") from error
        return
    try:
        before = json_of(path)
    except (OSError, ValueError) as error:
        raise _OtherRunError(f"{path} cannot be read: {error}. Remove {shelf.folder}.") from error
    differing = differences(before, content)
    if differing:
        raise _OtherRunError(
            f"{shelf.folder} holds the state of another run: {'; '.join(differing)}. Give what that run was "
            f"given, or remove the folder."
        )


def differences(before: Any, now: Any, name: str = "") -> list[str]:
    """What differs, by name, as in "recipe.keep was 0.6, is 0.5"."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        return [
            told
            for key in dict.fromkeys([*before, *now])
            for told in differences(before.get(key), now.get(key), f"{name}.{key}" if name else str(key))
        ]
    return [] if before == now else [f"{name} was {_short(before)}, is {_short(now)}"]


def _short(value: Any) -> str:
    told = json.dumps(value)
    return told if len(told) <= 60 else f"{told[:57]}..."


def _digest(tensors: Mapping[str, Tensor], facts: str) -> str:
    digest = hashlib.sha256(facts.encode())
    digest_tensors(digest, tensors)
    return digest.hexdigest()


def digest_tensors(digest: Any, tensors: Mapping[str, Tensor]) -> None:
    """Add names, dtypes, shapes and bits of `tensors` to a digest of hashlib's."""
    for name in sorted(tensors):
        value = tensors[name].cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
