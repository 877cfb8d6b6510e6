"""A measurement, and what the page asks of it -> the plan, its numbers, and the command that makes it."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from statprune import measurement as measurements
from statprune.anatomy.lookup import anatomy_of
from statprune.answers import answered
from statprune.budget.cost import Cost
from statprune.budget.frontier import Point, frontier
from statprune.budget.plan import Plan
from statprune.budget.restrictions import units_by_name
from statprune.budget.size import Size, size_of
from statprune.budget.value_dim import frontier_of_dims
from statprune.checkpoint.skeleton import skeleton
from statprune.engine.divergence import CHOICES, UNSURE
from statprune.errors import BudgetError, InputError, PlanError
from statprune.measurement import Measurement
from statprune.preparation import budget_of
from statprune.recipe import Recipe
from statprune.repeat import options_of

BUDGETS = {"params": "parameters", "macs": "MACs", "latency": "latency"}
WIDTHS = ("per-layer", "uniform", "stock")
OUT = "smaller"
"""The folder that the command names where none is given yet."""


@dataclass(frozen=True, eq=False)
class Explored:
    """A measurement, read once and never changed, and its model as far as its config tells.

    Attributes:
        folder: the measurement's.
        found: the measurement.
        size: of the dense model, all of it.
        entries: files of entries of the user's own, without which the model cannot be opened.
        dtype: what the weights have to be loaded as; None where that is the checkpoint's own.
        mute: why the model writes no text; empty where it does.
    """

    folder: Path
    found: Measurement
    size: Size
    entries: tuple[Path, ...] = ()
    dtype: str | None = None
    mute: str = ""

    @property
    def budgets(self) -> list[str]:
        """What a budget may be of: latency where it was measured."""
        return [of for of in BUDGETS if of != "latency" or self.found.latency is not None]

    @property
    def blocks(self) -> int:
        """How many blocks the model has."""
        return 1 + max(site.block for site in self.found.sites)


@dataclass(frozen=True)
class Asked:
    """What the page asks: `floors` and `pins` as NAME=UNITS, with commas or a line each."""

    keep: float
    of: str = "params"
    widths: str = "per-layer"
    multiple: float | None = 8
    floors: str = ""
    pins: str = ""
    protect: tuple[int, ...] = ()

    def recipe(self) -> Recipe:
        """The recipe that it amounts to.

        Raises:
            InputError: a value cannot be used.
        """
        if self.multiple is None or self.multiple != int(self.multiple):
            raise BudgetError(f"multiple is {self.multiple}; give a whole number of at least 1.")
        return Recipe.of_options(
            {
                "keep": self.keep,
                "of": self.of,
                "widths": None if self.widths == "per-layer" else self.widths,
                "multiple": int(self.multiple),
                "floors": _units(self.floors, "floor"),
                "pins": _units(self.pins, "pin"),
                "protect": tuple(self.protect),
            }
        )


@dataclass(frozen=True, eq=False)
class Told:
    """The answer to what was asked; with `refused`, why there is none, and nothing else.

    Attributes:
        refused: one or two sentences; empty where there is a plan.
        plan: units kept per site.
        share: of what the budget counts, that the plan keeps.
        predicted: the divergence of the outputs that it is expected to cause.
        size: of the whole model under the plan.
        costs: (kind of budget, dense, kept), of the prunable projections.
        curve: the least predicted damage for other budgets of the same kind.
        recipe: what was asked.
    """

    refused: str = ""
    plan: Plan | None = None
    share: float = 0.0
    predicted: float = 0.0
    size: Size | None = None
    costs: tuple[tuple[str, float, float], ...] = ()
    curve: tuple[Point, ...] = ()
    recipe: Recipe | None = None


def opened(folder: Path, entries: Sequence[Path] = ()) -> Explored:
    """The measurement in `folder`, and the config of its model; no weights.

    Raises:
        InputError: it is not there or cannot be read, or its model cannot be opened.
    """
    content = measurements.read_json(folder)
    model = skeleton(str(content.get("model")))
    anatomy = anatomy_of(model)
    found = measurements.read(folder, anatomy)
    dtype = str(found.about["dtype"])
    own = str(getattr(model.config, "dtype", None) or "float32").removeprefix("torch.")
    parameters = size_of(model).parameters
    return Explored(
        folder=folder,
        found=found,
        size=Size(parameters, parameters * getattr(torch, dtype).itemsize),
        entries=tuple(entries),
        dtype=None if own == dtype else dtype,
        mute=_mute(model, anatomy.entry.kind),
    )


def told(explored: Explored, asked: Asked) -> Told:
    """What the measurement answers; what cannot be answered is said in words."""
    found = explored.found
    try:
        recipe = asked.recipe()
        answer = answered(found, recipe)
        if answer.plan is None:
            return Told(answer.refused)
        curve = _curve(explored, recipe_without_keep(recipe))
    except InputError as error:
        return Told(str(error))
    costs = []
    for of in explored.budgets:
        price = found.price(of)  # type: ignore[arg-type]  # a key of BUDGETS
        costs.append((of, float(price.dense(found.sites)), float(price.of_plan(answer.plan, found.sites))))
    gone = int(Cost("params", found.context).dense(found.sites)) - answer.parameters
    each = explored.size.bytes // explored.size.parameters
    size = Size(explored.size.parameters - gone, explored.size.bytes - gone * each)
    return Told("", answer.plan, answer.share, answer.predicted, size, tuple(costs), curve, recipe)


def recipe_without_keep(recipe: Recipe) -> tuple[Any, ...]:
    """What the curve depends on, hashable."""
    limits = tuple(tuple(sorted(each.items())) for each in (recipe.floors, recipe.pins))
    return (recipe.of, recipe.widths, recipe.multiple, *limits, tuple(recipe.protect))


@lru_cache(maxsize=32)
def _curve(explored: Explored, asked: tuple[Any, ...]) -> tuple[Point, ...]:
    """The least damage for each share; kept, since only what `asked` names changes it."""
    of, widths, multiple, floors, pins, protect = asked
    recipe = Recipe(
        keep=1.0,
        of=of,
        widths=widths,
        multiple=multiple,
        floors=dict(floors),
        pins=dict(pins),
        protect=protect,
    )
    found = explored.found
    budget = budget_of(recipe, found.price(of), found.about.get("stock_units"))
    if widths is not None or protect:
        return frontier(found.curves, found.sites, budget, same=widths is not None)
    return frontier_of_dims(found.curves, found.values, found.sites, budget)


def words(explored: Explored, recipe: Recipe, out: str = "", *, resume: bool = False) -> list[str]:
    """The command that makes the plan that a recipe leads to, as a list of words."""
    keep = f"{recipe.keep:.6g}"
    entries = [f"--entry={path}" for path in explored.entries]
    dtype = [] if explored.dtype is None else ["--dtype", explored.dtype]
    given = ["--from", str(explored.folder), "--keep", keep, *options_of(recipe.to_json()), *entries, *dtype]
    end = ["--resume"] if resume else []
    return ["statprune", "compress", *given, "--out", str(folder_of(out)), *end]


def command(explored: Explored, recipe: Recipe, out: str = "", *, resume: bool = False) -> str:
    """The same as a line for a shell."""
    return shlex.join(words(explored, recipe, out, resume=resume))


def folder_of(out: str) -> Path:
    """The folder that was typed; one of the user's home by its whole path."""
    return Path(out.strip() or OUT).expanduser()


def quality(explored: Explored, predicted: float) -> str:
    """What a predicted damage means, in words."""
    if explored.found.about["damage"] not in {CHOICES, UNSURE}:
        return "squared error of the outputs, over the dense model's"
    if explored.mute:
        return "KL divergence of the outputs from the dense model's, nats a choice"
    times = float(torch.tensor(predicted, dtype=torch.float64).exp())
    return f"KL divergence, nats a token: a perplexity about {times:.3g} times the dense model's"


def rows(told: Told, explored: Explored) -> list[tuple[str, int, int, int, str]]:
    """The widths: (part, block, units kept, units, site), by part."""
    if told.plan is None:
        return []
    sites = explored.found.sites
    order = list(dict.fromkeys(site.part for site in sites))
    found = [(site.part, site.block, told.plan[site], site.units, site.name) for site in sites]
    return sorted(found, key=lambda row: (order.index(row[0]), row[1]))


def added(limits: str, site: str | None, units: float | None) -> str:
    """Floors or pins with that of a site added or replaced, or taken away where `units` is None."""
    kept = [each for each in _each(limits) if each.partition("=")[0].strip() != site]
    if site is not None and units is not None:
        kept.append(f"{site}={int(units)}")
    return "\n".join(kept)


def _each(limits: str) -> list[str]:
    return [each for each in re.split(r"[\s,;]+", re.sub(r"\s*=\s*", "=", limits)) if each]


def _units(limits: str, what: str) -> Mapping[str, int]:
    try:
        return units_by_name(_each(limits))
    except PlanError as error:
        raise PlanError(f"{what} {error}; write blocks.0.attention=4, or attention=4 for a floor.") from None


def _mute(model: Any, kind: str) -> str:
    """Why there is no text before and after; empty where there is."""
    name = type(model).__name__
    if kind == "encoder":
        return (
            f"{name} is an encoder: it fills in, labels or embeds text, and writes none; there are no "
            f"samples. `statprune evaluate` with a task tells how good it is."
        )
    if kind == "encoder-decoder":
        return (
            f"{name} writes an answer to a source, not a continuation of a prompt; samples are made for "
            f"decoders alone. `statprune evaluate` with its own task tells how good it is."
        )
    if not model.can_generate():
        return f"{name} has no language-modelling head, so it writes no text."
    return ""
