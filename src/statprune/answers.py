"""What a budget costs and what it buys, read off one measurement."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from statprune import measurement as measurements
from statprune.anatomy.lookup import anatomy_of
from statprune.budget.allocate import Budget
from statprune.budget.cost import Cost
from statprune.budget.plan import Plan
from statprune.budget.shares import grid
from statprune.checkpoint.skeleton import skeleton
from statprune.engine.progress import Progress, no_progress
from statprune.errors import BudgetError, InputError
from statprune.measurement import Measurement
from statprune.planning import OPTIONS, start_of
from statprune.planning import plan as measure
from statprune.preparation import STAT_WIDTHS, Prepared, budget_of
from statprune.recipe import Recipe

OF_THE_BUDGET = ("of", "widths", "multiple", "floors", "protect", "pins", "value_dim")


@dataclass(frozen=True)
class Answer:
    """One budget: the plan of least predicted damage, or why there is none.

    `share` is of what the budget counts; `parameters` are those of the prunable projections under the plan.
    """

    keep: float
    plan: Plan | None
    share: float
    parameters: int
    predicted: float
    refused: str = ""


@dataclass(frozen=True)
class Answers:
    """Answers to several budgets of one kind, and what their damage is, in words."""

    of: str
    damage: str
    answers: tuple[Answer, ...]
    latency: dict[str, Any] | None
    before: bool = False
    """Whether the measurement was finished before, and only what that run had left was removed."""

    def to_json(self) -> dict[str, Any]:
        """JSON-able content."""
        return asdict(self)


def answer(  # noqa: PLR0913 - all but one are named
    model: PreTrainedModel | str | Path | None = None,
    *,
    data: Any = None,
    measured: str | Path | None = None,
    out: str | Path | None = None,
    keeps: Sequence[float],
    resume: bool = False,
    offload: bool = False,
    max_memory: str | int | None = None,
    progress: Progress = no_progress,
    **options: Any,
) -> Answers:
    """Measure a model, or take a measurement made before, and answer budgets; nothing is changed.

    Args:
        model: as for `plan`; with `measured` it may be left out. Of a folder or a hub name that was measured
            before only the config is read.
        data: calibration data, as for `compress`; not with `measured`.
        measured: a folder that `plan` has written.
        out: where to save a new measurement.
        keeps: shares to answer for.
        resume: go on with a measurement into `out`, as for `plan`.
        offload: as for `plan`; latency is not measured then.
        max_memory: as for `plan`.
        progress: called after every block, as for `compress`.
        **options: of, widths, multiple, floors, protect, pins; and those of `plan`.

    Raises:
        InputError: something given cannot be used. A share that cannot be reached is answered as such.
    """
    asked = {name: value for name, value in options.items() if name in OF_THE_BUDGET}
    recipes = [Recipe.of_options({**asked, "keep": keep}) for keep in keeps]
    if not recipes:
        raise InputError("no share to answer for; give keeps, as in keeps=[0.8, 0.6].")
    if measured is not None and (resume or offload or max_memory is not None):
        raise InputError("resume, offload and max_memory are for measuring; leave them out here.")
    model, folder = start_of(model, data, measured, options)
    if folder is None:
        rest = {name: value for name, value in options.items() if name not in OF_THE_BUDGET}
        found = measure(
            model,
            data=data,
            out=out,
            latency=options.get("of") == "latency" or (out is not None and not offload),
            resume=resume,
            offload=offload,
            max_memory=max_memory,
            progress=progress,
            restrictions=recipes[0].restrictions,
            value_dim=recipes[0].value_dim,
            **rest,
        )
    else:
        opened = skeleton(model) if isinstance(model, str | Path) else model
        unknown = [name for name in options if name not in OF_THE_BUDGET and name not in OPTIONS]
        if unknown:
            raise InputError(f"there is no option {unknown[0]!r} for a budget.")
        anatomy = anatomy_of(opened)
        weights = None if isinstance(model, str | Path) else measurements.fingerprint(anatomy)
        found = measurements.read(folder, anatomy, weights)
    latency_of = None if found.latency is None else dict(found.latency.conditions)
    answers = tuple(answered(found, each) for each in recipes)
    return Answers(recipes[0].of, found.about["damage"], answers, latency_of, found.before)


def answered(found: Measurement, recipe: Recipe) -> Answer:
    """What a measurement answers to one budget.

    Raises:
        InputError: it asks for what the model does not have, or was not measured. A share that cannot be
            reached is answered as such.
    """
    price, keep = found.price(recipe.of), float(recipe.keep or 1.0)
    try:
        plan = found.allocate(
            budget_of(recipe, price, found.about.get("stock_units")),
            recipe.widths or "per-layer",
            value_dim=recipe.value_dim,
        )
    except BudgetError as error:
        return Answer(keep, None, 0.0, 0, 0.0, str(error))
    share = price.of_plan(plan, found.sites) / price.dense(found.sites)
    parameters = Cost("params", found.context).of_plan(plan, found.sites)
    return Answer(keep, plan, share, parameters, found.predicted(plan))


def budget_for(prepared: Prepared, recipe: Recipe) -> tuple[Budget, bool]:
    """The recipe's budget, and whether blocks must be equal."""
    kind, measurement = prepared.anatomy.entry.kind, prepared.measurement
    default = STAT_WIDTHS.get(kind, "per-layer") if recipe.method == "stat" else "per-layer"
    widths = recipe.widths or default
    cost = Cost("params" if recipe.of == "latency" else recipe.of, prepared.context)
    price = cost if measurement is None else measurement.price(recipe.of)
    return budget_of(replace(recipe, widths=widths), price, prepared.stock), widths != "per-layer"


def shares_of(prepared: Prepared, recipe: Recipe) -> list[float]:
    """The shares of the grid that can be reached, ascending.

    Raises:
        BudgetError: there is none.
    """
    budget, same = budget_for(prepared, recipe)
    budget.restrictions.check(prepared.anatomy.sites)
    least = share_of(budget, budget.least(prepared.anatomy.sites, same=same), prepared)
    shares = grid(least)
    if not shares:
        raise BudgetError(
            f"the narrowest widths leave {least:.4f} of {recipe.of}: there is nothing to try. Lift floors, "
            f"pins or protection."
        )
    return shares


def share_of(budget: Budget, plan: Plan, prepared: Prepared) -> float:
    """What a plan keeps of what the budget counts."""
    sites = prepared.anatomy.sites
    return budget.cost.of_plan(plan, sites) / budget.cost.dense(sites)
