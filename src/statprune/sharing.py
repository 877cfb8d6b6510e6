"""What a run needs before it begins: its state, and where several processes share it, that they can."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from statprune.anatomy.ranks import Followed, Ranks, from_each
from statprune.checkpoint.unfinished import Unfinished
from statprune.errors import DataError, InputError
from statprune.identity import identity_of, require_same
from statprune.keeping import begun, lent
from statprune.preparation import Prepared
from statprune.recipe import Recipe


def device_of(recipe: Recipe, ranks: Ranks, *, in_memory: bool) -> str:
    """Where this process computes: of several on a machine with GPUs each takes its own.

    Raises:
        InputError: there are fewer GPUs than processes here, or all would take the same.
    """
    asked = recipe.device
    if ranks.size == 1 or asked == "cpu" or (in_memory and asked == "auto"):
        return asked
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if asked not in ("auto", "cuda"):
        raise InputError(f"device is {asked!r}, and each process takes a GPU of its own; give cuda, or cpu.")
    if gpus == 0:
        return asked
    if ranks.local >= gpus:
        raise InputError(
            f"process {ranks.local + 1} on a machine with {gpus} GPUs; start one process for each GPU, or "
            f"give device cpu."
        )
    return f"cuda:{ranks.local}"


def begun_together(
    prepared: Prepared,
    recipe: Recipe,
    ranks: Ranks,
    shelf: Unfinished | None,
    limit: int | None,
    scratch: Path | None,
) -> Prepared:
    """The run as it begins, or goes on: with the states of `shelf`, which the first process has.

    Without a shelf hidden states lie in `scratch` where they would exceed the `limit` of memory.

    Raises:
        InputError: processes cannot share this run, or were given different things; it does not fit.
        OutputError: the shelf holds the state of another run.
    """
    if ranks.size > 1:
        _require_shareable(prepared, recipe, ranks)
        require_same(identity_of(prepared, recipe), ranks)
        prepared = replace(prepared, anatomy=replace(prepared.anatomy, ranks=ranks))
    if shelf is not None:
        prepared = begun(shelf, prepared, recipe, limit)
    else:
        prepared = lent(prepared, recipe, limit, scratch)
    anatomy = prepared.anatomy
    if ranks.size > 1:
        anatomy = replace(anatomy, shelf=Followed(anatomy.shelf, ranks))
    return replace(prepared, anatomy=anatomy)


def _require_shareable(prepared: Prepared, recipe: Recipe, ranks: Ranks) -> None:
    """Raise InputError for fewer samples than processes, and for what cannot be shared."""
    samples = int(prepared.samples.protocol["samples"])
    if samples < ranks.size:
        raise DataError(
            f"{samples} calibration samples for {ranks.size} processes; give more samples, or start fewer."
        )
    experts = any(site.experts for site in prepared.anatomy.sites)
    if experts and recipe.method == "stat" and recipe.backend in ("gaussian", "countsketch"):
        raise InputError(
            f"backend {recipe.backend} of a model with experts is for one process; use gram or qr."
        )


def heard_elsewhere(heard: Sequence[str], ranks: Ranks) -> list[str]:
    """Warnings of the other processes that were not heard here."""
    each = from_each(ranks, list(heard))
    return [text for text in dict.fromkeys(text for own in each for text in own) if text not in heard]
