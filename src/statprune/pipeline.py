"""The run on one page: check, load, calibrate, measure, allocate, compress, save and verify."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from transformers import PreTrainedModel

from statprune.ahead import foreseeing, tell_chosen, tell_prepared
from statprune.anatomy.lookup import Anatomy, anatomy_of
from statprune.anatomy.ranks import ALONE, Ranks
from statprune.anatomy.shelf import State
from statprune.budget.curves import drawn_of
from statprune.budget.plan import Plan
from statprune.card.card import write_card
from statprune.card.dense_model import base_of
from statprune.checkpoint.aside import check_output, require_outside
from statprune.checkpoint.record_file import read_record
from statprune.checkpoint.save import SavedFolder, save
from statprune.checkpoint.unfinished import unfinished
from statprune.checkpoint.widths import adopt
from statprune.engine.backends import maker_of
from statprune.engine.measure import MakeAccumulator
from statprune.engine.progress import Progress, no_progress
from statprune.engine.refit import refit
from statprune.engine.stat import Decide, measure, stat
from statprune.engine.trace import Trace
from statprune.evaluation.devices import evaluating
from statprune.heap import giving_back
from statprune.inputs import open_model
from statprune.keeping import finished_before, scratch_of
from statprune.limits import limit_of
from statprune.planning import allocated, hearing, start_of, surveyed
from statprune.preparation import Prepared, prepare, prepare_measured, require_one_dtype, stat_rule
from statprune.recipe import Recipe
from statprune.record import record_of
from statprune.sharing import begun_together, device_of, heard_elsewhere
from statprune.surgery.undo import remember


@dataclass(frozen=True, eq=False)
class Result:
    """What a run leaves.

    Attributes:
        model: the narrowed model; None after a dry run, and where it never was in memory.
        plan: units kept per site.
        trace: what was done at each site, and what it cost; names no site after a dry run.
        record: all of it and the protocol, JSON-able; saved as statprune.json.
        tokenizer: the model's tokenizer, where it has one.
        folder: where it was saved and how it loads; None where no folder was asked for.
        before: whether a run before this one had finished it, and this one only removed what that had left.
    """

    model: PreTrainedModel | None
    plan: Plan
    trace: Trace
    record: dict[str, Any]
    tokenizer: Any = None
    folder: SavedFolder | None = None
    before: bool = False


@giving_back
def compress(  # noqa: PLR0913 - all but one are named
    model: PreTrainedModel | str | Path | None = None,
    *,
    data: Any = None,
    measured: str | Path | None = None,
    out: str | Path | None = None,
    tokenizer: Any = None,
    dry_run: bool = False,
    resume: bool = False,
    offload: bool = False,
    max_memory: str | int | None = None,
    progress: Progress = no_progress,
    ranks: Ranks = ALONE,
    **options: Any,
) -> Result:
    """Make `model` smaller, without fine-tuning and without gradients.

    Args:
        model: a Hugging Face model, its folder, or its name on the hub. A model in memory is changed in
            place; if the run fails it is put back as it was (until the end its dense weights stay in memory).
            With `measured` it may be left out: it is opened where it was when it was measured.
        data: calibration data: `NAME[:CONFIG][@SPLIT]`, a local file or folder; or, in memory, a list of
            strings, of pairs or of token ids, a `datasets.Dataset`, or batches (dicts of whatever tensors the
            model's forward takes), which are all used, in order. For models that read images: a folder, a
            list or a data set of them; sound: mappings with audio and text. Not with `measured`, which
            brings its own.
        measured: a folder that `plan` has written: any budget of it takes no further measuring.
        out: a folder that does not exist yet; None saves nothing.
        tokenizer: takes precedence over the model's own; needed for a model in memory whose data is text.
            For images and sound the processor.
        dry_run: stop when the plan is made; nothing is changed, nothing written, not even to `out`.
        resume: go on with a run into `out` that did not end: its state is in a folder beside, block by block,
            and the result is the same, bit for bit. Where there is none, the run begins; where `out` was
            finished and only its state is left, that is removed.
        offload: leave the blocks of a model in a folder, or of a name, on disk, and read one at a time; the
            result has no model in memory.
        max_memory: with offload, bytes, or as in "6GB", that the process may take: hidden states lie in
            files where they would not fit; by default where half of what is free now would not do.
        progress: called after every block with (stage, blocks done, blocks, facts): `engine.progress`. A
            `Reporter` makes time left of it.
        ranks: the processes that share the run, as `together` gives them: each reads the model and the data,
            takes a part of the samples, and ends with the same model; the first one reports and writes.
        **options: the fields of `Recipe`: keep, of, plan, method, widths, samples, seq_len, text_column,
            dtype, device, seed, backend, multiple, floors, protect, pins, search.

    Returns:
        The model, the plan, the trace, the record, and the folder if one was asked for.

    Raises:
        InputError: something given cannot be used. Raised before any pass over the data, except where
            activations turn out to be NaN or infinite.
        StatpruneError: the run failed on our side.
    """
    recipe = Recipe.of_options(options)
    limit = limit_of(max_memory, offload=offload)
    first = ranks.rank == 0
    progress = progress if first else no_progress
    done = finished_before(out, resume=resume) if first else None
    (done,) = ranks.same((done,)) if resume else (done,)
    model, source = start_of(model, data, measured, options)
    require_outside(out, model)
    if out is not None and first and (done is None or dry_run):
        check_output(Path(out))
    started = perf_counter()
    with ExitStack() as around:
        trace = Trace(warnings=around.enter_context(hearing()))
        shelf = None if out is None or dry_run or not first else around.enter_context(unfinished(Path(out)))
        scratch = scratch_of(shelf, around) if offload else None
        device = device_of(recipe, ranks, in_memory=isinstance(model, PreTrainedModel))
        opened = open_model(model, tokenizer, dtype=recipe.dtype, device=device, scratch=scratch)
        if out is not None:
            require_one_dtype(opened)
        around.enter_context(evaluating(opened.model))
        prepared = (
            prepare(opened, recipe, data) if source is None else prepare_measured(opened, recipe, source)
        )
        trace.ended("prepare", started)
        prepared = begun_together(prepared, recipe, ranks, shelf, limit, scratch)
        if done is not None and not dry_run:
            return of_before(done, out, opened.tokenizer, ranks)
        saves = out is not None
        tell_prepared(progress, prepared, recipe, dry_run=dry_run, saves=saves)
        if dry_run:
            plan = _decide(prepared, recipe, trace, progress)
            return Result(None, plan, trace, record_of(prepared, recipe, plan, trace), opened.tokenizer)
        if isinstance(model, PreTrainedModel):
            around.enter_context(_put_back_on_failure(prepared))
        plan = narrow(prepared, recipe, trace, progress, saves=saves)
        trace.warnings += heard_elsewhere(trace.warnings, ranks)
        narrowed = replace(anatomy_of(opened.model), shelf=prepared.anatomy.shelf if shelf is None else shelf)
        adopt(opened.model, narrowed)
        record = record_of(prepared, recipe, plan, trace)
        result = Result(None if offload else opened.model, plan, trace, record, opened.tokenizer)
        if out is None or shelf is None:
            return result
        shelf.settle("refit" if recipe.method == "refit" else "prune")
        return saved(result, prepared, narrowed, Path(out), shelf.folder, progress)


def saved(
    result: Result, prepared: Prepared, narrowed: Anatomy, out: Path, within: Path, progress: Progress
) -> Result:
    """The same result, in the folder `out`, written in the run's state `within` first."""
    opened = prepared.opened
    folder = save(
        opened.model,
        narrowed,
        out,
        source=opened.source,
        tokenizer=opened.tokenizer,
        processor=opened.processor,
        record=result.record,
        verify_batch={name: value[:2] for name, value in prepared.samples.batches[0].items()},
        within=within,
        describe=partial(
            write_card,
            record=result.record,
            base=base_of(opened.name, opened.source, str(opened.model.name_or_path)),
            tokenizer=opened.tokenizer,
        ),
    )
    progress("save", 1, 1)
    return replace(result, folder=folder)


def of_before(facts: Mapping[str, Any], out: str | Path | None, tokenizer: Any, ranks: Ranks) -> Result:
    """What a run into `out` left that was killed behind its last step, maybe by another path to it."""
    folder = SavedFolder.of_json(facts).at(Path(out)) if ranks.rank == 0 and out is not None else None
    record = ranks.same(None if folder is None else read_record(folder.path))
    plan = Plan.of_json(record["plan"])
    return Result(None, plan, Trace.of_json(record["trace"]), record, tokenizer, folder, before=True)


def narrow(prepared: Prepared, recipe: Recipe, trace: Trace, progress: Progress, *, saves: bool) -> Plan:
    """Narrow the model in place; return the plan."""
    model, anatomy, batches = prepared.opened.model, prepared.anatomy, prepared.samples.batches
    plan = _decided(prepared, recipe, trace, progress)
    if isinstance(plan, Plan):
        tell_chosen(progress, prepared, recipe, plan, saves=saves)
    else:
        progress = foreseeing(progress, prepared, recipe, plan, saves=saves)
    started = perf_counter()
    if isinstance(plan, Plan) and recipe.method == "refit":
        refit(model, anatomy, batches, plan, trace, progress)
        trace.ended("refit", started)
        return plan
    return stat(model, anatomy, batches, plan, _make(prepared, recipe), trace, progress)


def _decided(prepared: Prepared, recipe: Recipe, trace: Trace, progress: Progress) -> Plan | Decide:
    """The plan, made once: a run that goes on takes the one it had. Method stat makes it on its way."""
    shelf = prepared.anatomy.shelf
    if recipe.method == "stat":
        return prepared.plan or stat_rule(recipe, prepared)
    earlier = shelf.earlier("plan", 0)
    if earlier is not None:
        facts = earlier.facts
        trace.predicted, trace.damage, trace.search = facts["predicted"], facts["damage"], facts["search"]
        trace.curves = facts["curves"]
        return Plan.of_json(facts)
    plan = prepared.anatomy.ranks.same(_decide(prepared, recipe, trace, progress))
    facts = {
        **plan.to_json(),
        "predicted": trace.predicted,
        "damage": trace.damage,
        "search": trace.search,
        "curves": trace.curves,
    }
    shelf.note("plan", 0, State(facts=facts))
    return plan


def _decide(prepared: Prepared, recipe: Recipe, trace: Trace, progress: Progress) -> Plan:
    """The plan: given, or read off a measurement."""
    if prepared.plan is not None:
        return prepared.plan
    started = perf_counter()
    if recipe.method == "stat":
        batches, make = prepared.samples.batches, _make(prepared, recipe)
        curves, _ = measure(prepared.opened.model, prepared.anatomy, batches, make, progress)
        trace.ended("measure", started)
        plan = stat_rule(recipe, prepared)(curves)
        trace.curves = drawn_of(curves, plan.widths)
        return plan
    measurement = prepared.measurement or surveyed(
        prepared, with_latency=recipe.of == "latency", progress=progress
    )
    trace.ended("survey", started)
    started = perf_counter()
    plan = allocated(prepared, recipe, measurement, trace, progress)
    if recipe.search:
        trace.ended("search", started)
    trace.predicted, trace.damage = measurement.predicted(plan), measurement.about["damage"]
    trace.curves = measurement.drawn(plan)
    return plan


def _make(prepared: Prepared, recipe: Recipe) -> MakeAccumulator:
    batches = prepared.samples.batches
    return maker_of(prepared.opened.model, prepared.anatomy, batches, recipe.backend, recipe.seed)


@contextmanager
def _put_back_on_failure(prepared: Prepared) -> Iterator[None]:
    restore = remember(prepared.opened.model)
    try:
        yield
    except BaseException:
        restore()
        raise
