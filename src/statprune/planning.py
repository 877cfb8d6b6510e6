"""`plan`: measure a model once, so that any budget can be answered and compressed to later."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

from statprune import measurement as measurements
from statprune.ahead import tell_measuring
from statprune.anatomy.shelf import IN_MEMORY
from statprune.budget.plan import Plan, fit_value_dim
from statprune.budget.restrictions import Restrictions
from statprune.calibration.batches import Batch, samples_in
from statprune.checkpoint.aside import require_outside
from statprune.checkpoint.unfinished import Unfinished, unfinished
from statprune.engine.divergence import HOLD_OUT, held_out
from statprune.engine.latency import time_widths
from statprune.engine.probe import Probe
from statprune.engine.progress import Progress, no_progress
from statprune.engine.refit import refit
from statprune.engine.search import TRIALS, search
from statprune.engine.survey import survey, to_survey
from statprune.engine.trace import Trace
from statprune.engine.unsure import to_probe
from statprune.errors import InputError, OutputError, StatpruneWarning
from statprune.evaluation.devices import evaluating
from statprune.heap import giving_back
from statprune.inputs import open_model
from statprune.keeping import begun, finished_before, lent, scratch_of
from statprune.limits import limit_of
from statprune.measured_file import require_parts
from statprune.measurement import Measurement
from statprune.preparation import Prepared, budget_of, prepare, value_dim_of
from statprune.recipe import Recipe
from statprune.surgery.undo import remember
from statprune.version import __version__

OPTIONS = ("samples", "seq_len", "text_column", "dtype", "device", "seed")
"""Options of `plan`: fields of `Recipe`."""

OF_THE_MEASUREMENT = ("samples", "seq_len", "text_column", "seed", "backend", "method")
"""Options that a measurement has settled."""


@giving_back
def plan(  # noqa: PLR0913 - all but one are named
    model: PreTrainedModel | str | Path,
    *,
    data: Any,
    out: str | Path | None = None,
    tokenizer: Any = None,
    latency: bool = True,
    resume: bool = False,
    offload: bool = False,
    max_memory: str | int | None = None,
    progress: Progress = no_progress,
    restrictions: Restrictions | None = None,
    value_dim: int | None = None,
    **options: Any,
) -> Measurement:
    """Measure `model` once; nothing is changed.

    Args:
        model: a Hugging Face model, its folder, or its name on the hub.
        data: calibration data, as for `compress`.
        out: a folder that does not exist yet, for `compress(measured=...)`; None saves nothing.
        tokenizer: takes precedence over the model's own, as for `compress`.
        latency: whether to time the blocks at several widths, for budgets of latency; not with offload.
        resume: go on with a measurement into `out` that did not end, as for `compress`.
        offload: leave the blocks of a model in a folder, or of a name, on disk, and read one at a time.
        max_memory: with offload, as for `compress`.
        progress: called after every block, as for `compress`.
        restrictions: of budgets to come; what the model does not have is refused before it is measured.
        value_dim: of budgets to come, likewise.
        **options: samples, seq_len, text_column, dtype, device, seed: fields of `Recipe`.

    Returns:
        The measurement; `allocate` answers a budget.

    Raises:
        InputError: something given cannot be used. Raised before any pass over the data.
    """
    for name in options:
        if name not in OPTIONS:
            raise InputError(
                f"there is no option {name!r} for a measurement; options are {', '.join(OPTIONS)}."
            )
    if offload and latency:
        raise InputError("latency is measured of a model in memory; leave out offload, or latency.")
    limit = limit_of(max_memory, offload=offload)
    done = finished_before(out, resume=resume)
    require_outside(out, model)
    if out is not None and done is None:
        measurements.require_free(Path(out))
    limits = {} if restrictions is None else restrictions.to_json()
    recipe = Recipe.of_options({**options, **limits, "keep": 1.0})
    with ExitStack() as around:
        shelf = None if out is None else around.enter_context(measuring_into(Path(out)))
        scratch = scratch_of(shelf, around) if offload else None
        opened = open_model(model, tokenizer, dtype=recipe.dtype, device=recipe.device, scratch=scratch)
        around.enter_context(evaluating(opened.model))
        prepared = prepare(opened, recipe, data)
        fit_value_dim(value_dim, prepared.anatomy.sites)
        if shelf is not None:
            prepared = begun(shelf, prepared, recipe, limit, measures={"latency": latency})
        else:
            prepared = lent(prepared, recipe, limit, scratch)
        if out is not None and done is not None:
            found = measurements.read(Path(out), prepared.anatomy, prepared.fingerprint)
            return replace(found, before=True)
        tell_measuring(progress, prepared, latency=latency)
        measurement = surveyed(prepared, with_latency=latency, progress=progress)
        if out is not None and shelf is not None:
            measurements.write(measurement, Path(out), within=shelf.folder)
    return measurement


@contextmanager
def measuring_into(out: Path) -> Iterator[Unfinished]:
    """The state of a measurement; folders above it that are made go again if it leaves nothing."""
    above = out.absolute().parents
    made = [folder for folder in above if not folder.exists()]
    try:
        above[0].mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{above[0]} cannot be made: {error}.") from error
    try:
        with unfinished(out) as shelf:
            yield shelf
    finally:
        for folder in made:
            with suppress(OSError):  # it holds something
                folder.rmdir()


def surveyed(prepared: Prepared, *, with_latency: bool, progress: Progress) -> Measurement:
    """Measure the model as it is."""
    model, anatomy, samples = prepared.opened.model, prepared.anatomy, prepared.samples
    probe = Probe(model, anatomy, to_probe(model, anatomy, samples.batches, progress))
    found, unit = survey(model, anatomy, to_survey(anatomy, samples.batches), probe, progress)
    curves = {site.name: found[site.name] for site in anatomy.sites}
    timed = None
    if with_latency:
        first = anatomy.ranks.rank == 0
        timed = anatomy.ranks.same(time_widths(model, anatomy, samples.batches[0]) if first else None)
        progress("latency", 1, 1)
    return Measurement(
        curves=curves,
        values={name: curve for name, curve in found.items() if name not in curves},
        sites=anatomy.sites,
        context=prepared.context,
        latency=timed,
        samples=samples,
        model=_lasting(prepared.opened.name),
        fingerprint=prepared.fingerprint,
        about={
            "statprune": __version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "model_type": model.config.model_type,
            "dtype": str(model.dtype).removeprefix("torch."),
            "notes": list(prepared.notes),
            "damage": unit,
            "stock_units": dict(prepared.stock),
        },
    )


def allocated(
    prepared: Prepared, recipe: Recipe, measurement: Measurement, trace: Trace, progress: Progress
) -> Plan:
    """The plan that the recipe asks for; refined where it asks for a search. The model is left as it was.

    Raises:
        InputError: the budget cannot be reached.
    """
    budget = budget_of(recipe, measurement.price(recipe.of), measurement.about.get("stock_units"))
    widths = recipe.widths or "per-layer"
    value_dim = value_dim_of(recipe, prepared)
    plan = measurement.allocate(budget, widths, value_dim=value_dim)
    if not recipe.search:
        return plan
    model, anatomy = prepared.opened.model, replace(prepared.anatomy, shelf=IN_MEMORY)
    batches, restore = _enough(prepared), remember(model)

    def tried(plan: Plan) -> float:
        found = Trace()
        try:
            refit(model, anatomy, batches, plan, found, splice=False)
        finally:
            restore()
        progress("search", len(trace.search) + 1, TRIALS)
        trace.search.append({**plan.to_json(), "divergence": found.divergence})
        return found.divergence if found.divergence is not None else float("inf")

    best, _ = search(
        measurement.curves,
        anatomy.sites,
        lambda curves: measurement.allocate(budget, widths, curves, value_dim),
        tried,
    )
    return replace(best, why=f"{best.why}, refined by search")


def _enough(prepared: Prepared) -> list[Batch]:
    """The first batches, as many as a trial of a search needs, with a sample for every process."""
    part = to_survey(prepared.anatomy, prepared.samples.batches)
    held = sum(len(rows) for rows in held_out(part))
    enough = held >= HOLD_OUT and sum(map(samples_in, part)) >= prepared.anatomy.ranks.size
    return part if enough else list(prepared.samples.batches)


def _lasting(name: str) -> str:
    """A name on the hub as it is, a folder by its whole path: the measurement may be used from elsewhere."""
    return str(Path(name).resolve()) if Path(name).is_dir() else name


def start_of(
    model: Any, data: Any, measured: str | Path | None, options: Mapping[str, Any]
) -> tuple[Any, Path | None]:
    """The model to open, and the measurement to start from.

    Raises:
        InputError: model or data is missing, or an option contradicts the measurement.
    """
    if measured is None:
        for name, value in (("model", model), ("data", data)):
            if value is None:
                raise InputError(f"no {name}; give {name}, or a measurement that `statprune plan` has made.")
        return model, None
    if data is not None:
        raise InputError("both data and a measurement are given; a measurement brings its own samples.")
    settled = [name for name in options if name in OF_THE_MEASUREMENT and options[name] is not None]
    if settled:
        raise InputError(
            f"{settled[0]} was settled when {measured} was measured; leave it out, or measure again."
        )
    folder = Path(measured)
    content = measurements.read_json(folder)
    require_parts(content, folder / measurements.FILE)
    return content["model"] if model is None else model, folder


@contextmanager
def hearing() -> Iterator[list[str]]:
    """Our own warnings as they come, each of them, noted as text as well as shown."""
    heard: list[str] = []
    show = warnings.showwarning

    def note(message: Warning | str, category: type[Warning], *rest: Any, **named: Any) -> None:
        if issubclass(category, StatpruneWarning):
            heard.append(str(message))
        show(message, category, *rest, **named)

    with warnings.catch_warnings():
        warnings.simplefilter("always", StatpruneWarning)
        warnings.showwarning = note
        yield heard
