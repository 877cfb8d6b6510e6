"""The state of a run beside its output: begun, gone on with, or recognised where all was done."""

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from statprune.checkpoint.finished import finished
from statprune.checkpoint.offload import Lent
from statprune.checkpoint.unfinished import Unfinished, check_unfinished, folder_for
from statprune.identity import identity_of
from statprune.limits import fitting
from statprune.preparation import Prepared
from statprune.recipe import Recipe


def finished_before(out: str | Path | None, *, resume: bool) -> dict[str, Any] | None:
    """What a run into `out` noted that was killed behind its last step; None if there is none to go on with.

    Raises:
        OutputError: the state of a run lies there, and `resume` does not ask for it.
    """
    if out is None:
        return None
    check_unfinished(Path(out), resume=resume)
    return finished(folder_for(Path(out)), Path(out)) if resume else None


def scratch_of(shelf: Unfinished | None, around: ExitStack) -> Path:
    """A folder for what is converted: with the run's state, or for a while."""
    return shelf.scratch if shelf is not None else Path(around.enter_context(TemporaryDirectory()))


def begun(shelf: Unfinished, prepared: Prepared, recipe: Recipe, limit: int | None, **more: Any) -> Prepared:
    """The same run with its state on `shelf`, which is compared with all that its result depends on.

    `limit` is the memory that it may take where blocks stay on disk; `more` is what else tells runs apart.

    Raises:
        OutputError: the state is that of another run.
        InputError: the run does not fit into the limit.
    """
    shelf.lender = prepared.opened.lender
    if shelf.lender is not None:
        found = fitting(prepared, recipe, limit)
        shelf.spills, shelf.lender.ahead = found.spills, found.ahead
    shelf.begin(identity_of(prepared, recipe) | more)
    return replace(prepared, anatomy=replace(prepared.anatomy, shelf=shelf))


def lent(prepared: Prepared, recipe: Recipe, limit: int | None, scratch: Path | None) -> Prepared:
    """The same run where nothing is kept; hidden states lie in `scratch` if they would exceed the `limit`.

    Raises:
        InputError: the run does not fit into the limit.
    """
    lender = prepared.opened.lender
    if lender is None:
        return prepared
    found = fitting(prepared, recipe, limit)
    lender.ahead = found.ahead
    shelf = Lent(lender, scratch if found.spills else None)
    return replace(prepared, anatomy=replace(prepared.anatomy, shelf=shelf))
