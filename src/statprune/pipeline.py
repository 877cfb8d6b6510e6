"""The run on one page: check, load, calibrate, measure, allocate, compress, save and verify."""

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

from statprune.anatomy.lookup import anatomy_of
from statprune.budget.cost import Cost
from statprune.budget.plan import Plan
from statprune.checkpoint.save import SavedFolder, check_output, save
from statprune.checkpoint.widths import adopt
from statprune.engine.backends import maker
from statprune.engine.measure import MakeAccumulator
from statprune.engine.stat import Progress, measure, no_progress, stat
from statprune.engine.trace import Trace
from statprune.errors import StatpruneWarning
from statprune.evaluation.devices import evaluating
from statprune.inputs import open_model
from statprune.preparation import Prepared, prepare, require_one_dtype
from statprune.recipe import Recipe
from statprune.surgery.undo import remember
from statprune.version import __version__


@dataclass(frozen=True, eq=False)
class Result:
    """What a run leaves.

    Attributes:
        model: the narrowed model; None after a dry run.
        plan: units kept per site.
        trace: what was done at each site, and what it cost; names no site after a dry run.
        record: all of it and the protocol, JSON-able; saved as statprune.json.
        tokenizer: the model's tokenizer, where it has one.
        folder: where it was saved and how it loads; None where no folder was asked for.
    """

    model: PreTrainedModel | None
    plan: Plan
    trace: Trace
    record: dict[str, Any]
    tokenizer: Any = None
    folder: SavedFolder | None = None


def compress(
    model: PreTrainedModel | str | Path,
    *,
    data: Any,
    out: str | Path | None = None,
    tokenizer: Any = None,
    dry_run: bool = False,
    progress: Progress = no_progress,
    **options: Any,
) -> Result:
    """Make `model` smaller, without fine-tuning and without gradients.

    Args:
        model: a Hugging Face model, its folder, or its name on the hub. A model in memory is changed in
            place; if the run fails it is put back as it was (until the end its dense weights stay in memory).
        data: calibration data: `NAME[:CONFIG][@SPLIT]`, a local file or folder; or, in memory, a list of
            strings, of pairs or of token ids, a `datasets.Dataset`, or batches (dicts of tensors), which are
            all used, in order.
        out: a folder that does not exist yet; None saves nothing.
        tokenizer: takes precedence over the model's own; needed for a model in memory whose data is text.
        dry_run: stop when the plan is made; nothing is changed, nothing written, not even to `out`.
        progress: called after every block with (stage, blocks done, blocks).
        **options: the fields of `Recipe`: keep, of, plan, method, widths, samples, seq_len, text_column,
            dtype, device, seed, backend, multiple.

    Returns:
        The model, the plan, the trace, the record, and the folder if one was asked for.

    Raises:
        InputError: something given cannot be used. Raised before any pass over the data, except where
            activations turn out to be NaN or infinite.
        StatpruneError: the run failed on our side.
    """
    recipe = Recipe.of_options(options)
    if out is not None:
        check_output(Path(out))
    started = perf_counter()
    with ExitStack() as around:
        trace = Trace(warnings=around.enter_context(_hearing()))
        opened = open_model(model, tokenizer, dtype=recipe.dtype, device=recipe.device)
        if out is not None:
            require_one_dtype(opened)
        around.enter_context(evaluating(opened.model))
        prepared = prepare(opened, recipe, data)
        make = _make(prepared, recipe)
        trace.seconds["prepare"] = perf_counter() - started
        if dry_run:
            plan = _plan_only(prepared, make, trace, progress)
            return Result(None, plan, trace, _record(prepared, recipe, plan, trace), opened.tokenizer)
        if isinstance(model, PreTrainedModel):
            around.enter_context(_put_back_on_failure(prepared))
        batches = prepared.samples.batches
        plan = stat(opened.model, prepared.anatomy, batches, prepared.plan, make, trace, progress)
        narrowed = anatomy_of(opened.model)
        adopt(opened.model, narrowed)
        record = _record(prepared, recipe, plan, trace)
        result = Result(opened.model, plan, trace, record, opened.tokenizer)
        if out is None:
            return result
        folder = save(
            opened.model,
            narrowed,
            Path(out),
            source=opened.source,
            tokenizer=opened.tokenizer,
            processor=opened.processor,
            record=record,
            verify_batch={name: value[:2] for name, value in batches[0].items()},
        )
        return replace(result, folder=folder)


def _make(prepared: Prepared, recipe: Recipe) -> MakeAccumulator:
    return maker(
        recipe.backend,
        samples=prepared.samples.protocol["samples"],
        tokens=prepared.samples.tokens,
        generator=torch.Generator().manual_seed(recipe.seed),
        device=prepared.opened.model.device,
    )


def _plan_only(prepared: Prepared, make: MakeAccumulator, trace: Trace, progress: Progress) -> Plan:
    if isinstance(prepared.plan, Plan):
        return prepared.plan
    started = perf_counter()
    batches = prepared.samples.batches
    curves, _ = measure(prepared.opened.model, prepared.anatomy, batches, make, progress)
    trace.seconds["measure"] = perf_counter() - started
    return prepared.plan(curves)


@contextmanager
def _put_back_on_failure(prepared: Prepared) -> Iterator[None]:
    restore = remember(prepared.opened.model, prepared.anatomy.blocks)
    try:
        yield
    except BaseException:
        restore()
        raise


def _record(prepared: Prepared, recipe: Recipe, plan: Plan, trace: Trace) -> dict[str, Any]:
    """Everything needed to understand and to repeat the run."""
    sites, model, name = prepared.anatomy.sites, prepared.opened.model, prepared.opened.name
    costs = [Cost("params", prepared.context), Cost("macs", prepared.context)]
    return {
        "statprune": __version__,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        # Only the name of an absolute path: the record is saved with the model.
        "model": Path(name).name if Path(name).is_absolute() else name,
        "model_type": model.config.model_type,
        "dtype": str(model.dtype).removeprefix("torch."),
        "recipe": recipe.to_json(),
        "plan": plan.to_json(),
        "units": {site.name: site.units for site in sites},
        "cost": {
            cost.of: {
                "dense": cost.dense(sites),
                "kept": cost.of_plan(plan, sites),
                "share": cost.of_plan(plan, sites) / cost.dense(sites),
            }
            for cost in costs
        },
        "context": prepared.context,
        "data": prepared.samples.protocol,
        "notes": list(prepared.notes),
        "trace": trace.to_json(),
    }


@contextmanager
def _hearing() -> Iterator[list[str]]:
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
