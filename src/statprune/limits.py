"""The memory that a run may take, and whether its hidden states must lie in files."""

import re
from dataclasses import dataclass

from statprune.byte_size import byte_size
from statprune.engine.divergence import outputs_on_one
from statprune.engine.few_tokens import wanted_of
from statprune.engine.memory import Memory, free_memory, needed
from statprune.errors import InputError
from statprune.preparation import Prepared
from statprune.recipe import Recipe

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def limit_of(given: str | int | None, *, offload: bool) -> int | None:
    """Bytes: a whole number, or a number with KB, MB, GB or TB; None where nothing is given.

    Raises:
        InputError: it is no such number, or it is given for a run in memory.
    """
    if given is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", str(given).strip(), re.IGNORECASE)
    if found is None or isinstance(given, bool) or float(found[1]) == 0:
        raise InputError(f"max_memory is {given!r}; give bytes, or as in 6GB.")
    if not offload:
        raise InputError(f"max_memory is {given!r}, which goes with offload.")
    return int(float(found[1]) * _UNITS[found[2].upper()])


@dataclass(frozen=True)
class Fitting:
    """How a run whose blocks stay on disk fits into memory.

    Attributes:
        spills: whether hidden states must lie in files.
        ahead: whether there is room for a second block, which is read while one is worked on.
    """

    spills: bool
    ahead: bool


def fitting(prepared: Prepared, recipe: Recipe, limit: int | None) -> Fitting:
    """How the run fits into `limit`; without one, into half of what is free, shared with processes here.

    Raises:
        InputError: even so the run would take more than `limit`; says what for.
    """
    model, anatomy, batches = prepared.opened.model, prepared.anatomy, prepared.samples.batches
    narrows = prepared.plan is None or any(map(prepared.plan.narrows, anatomy.sites))

    def memory_if(*, of_tokens: bool, wanted: int) -> Memory:
        found = needed(model, anatomy, batches, recipe.method, of_tokens=of_tokens, wanted=wanted)
        if limit is not None and found.least > limit:
            raise InputError(
                f"max_memory is {byte_size(limit)}, and this run needs {byte_size(found.least)} with its "
                f"hidden states in files ({found.told()}). Give more{_thriftier(recipe)}."
            )
        return found

    # Before the model is called with a sample: what it takes whatever its outputs are.
    memory = memory_if(of_tokens=True, wanted=0)
    if recipe.method == "refit":
        unit, of_tokens = outputs_on_one(model, anatomy, batches[0])
        wanted = wanted_of(unit, of_tokens=of_tokens) if narrows else 0
        memory = memory_if(of_tokens=of_tokens, wanted=wanted)
    room = free_memory() // (2 * prepared.anatomy.ranks.here) if limit is None else limit
    spills = memory.most > room
    return Fitting(spills, ahead=(memory.least if spills else memory.most) + memory.block <= room)


def _thriftier(recipe: Recipe) -> str:
    return ", or take method stat, which needs less for a site" if recipe.method == "refit" else ""
