"""The smallest model whose score on a validation set falls by no more than it may."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from time import perf_counter
from typing import Any, cast

from transformers import PreTrainedModel

from statprune.anatomy.lookup import anatomy_of
from statprune.answers import shares_of
from statprune.checkpoint.aside import check_output
from statprune.checkpoint.unfinished import unfinished
from statprune.engine.progress import Progress, no_progress
from statprune.errors import InputError
from statprune.evaluation.devices import evaluating
from statprune.evaluation.drop import Gate, Limit, require_apart
from statprune.evaluation.heads import require_head
from statprune.evaluation.scoring import Prepared as Questions
from statprune.evaluation.scoring import prepare as prepare_task
from statprune.evaluation.tasks import Task, task_named
from statprune.inputs import open_model
from statprune.keeping import begun, finished_before
from statprune.pipeline import Result, of_before, saved
from statprune.planning import hearing, start_of
from statprune.preparation import prepare, prepare_measured, require_one_dtype
from statprune.quality import task_length
from statprune.recipe import Recipe
from statprune.record import record_of
from statprune.trials import Trials

MAX_TRIALS = 8
"""Enough to leave no share of the grid untried between one that passes and one that fails."""

INSTEAD = ("keep", "plan", "search")
"""Options of `Recipe` that say what trials find out."""


@dataclass(frozen=True, eq=False)
class Gated(Result):
    """What `smallest` leaves: the result of `compress`, and the gate that it has passed."""

    gate: Gate = field(kw_only=True)


def smallest(  # noqa: PLR0913 - all but one are named
    model: PreTrainedModel | str | Path | None = None,
    *,
    task: str | Task,
    max_drop: float,
    task_data: Any = None,
    max_examples: int | None = None,
    max_trials: int = MAX_TRIALS,
    data: Any = None,
    measured: str | Path | None = None,
    out: str | Path | None = None,
    tokenizer: Any = None,
    resume: bool = False,
    progress: Progress = no_progress,
    **options: Any,
) -> Gated:
    """Make `model` as small as a task's score allows, by `compress` with the share that trials find.

    The dense model is asked and measured once. Then it is narrowed to one share after the other, of a grid of
    0.02, by bisection that begins where the damage predicted allows the drop; each is asked. What comes back,
    and is saved, is the smallest that was within the drop itself.

    Args:
        model: as for `compress`. Besides the dense weights, those of the best trial so far stay in memory.
        task: an entry of docs/evaluation.md by its name, or a `Task` of your own.
        max_drop: how far its headline metric may fall: points, 0 to 100; of a perplexity per cent of the
            dense one.
        task_data: the validation set, a SOURCE or records, as for `evaluate`; None for the task's own on the
            hub. Not what the model is calibrated on.
        max_examples: ask no more than these, drawn by the seed.
        max_trials: models that are made and asked, at most.
        data: calibration data, as for `compress`.
        measured: a folder that `plan` has written, instead of data.
        out: a folder that does not exist yet; None saves nothing.
        tokenizer: as for `compress`.
        resume: go on with a run into `out` that did not end: measurement and trials are not repeated, only
            the best trial if it was made before.
        progress: as for `compress`; facts name the trial.
        **options: the fields of `Recipe`, without keep, plan and search.

    Returns:
        What `compress` does, with the gate; its record, saved as statprune.json, holds it as "gate".

    Raises:
        InputError: something given cannot be used; raised before any pass over the data.
        BudgetError: no share that was tried is within the drop; nothing is written.
        StatpruneError: the run failed on our side.
    """
    recipe, limit = _recipe(options, max_trials), Limit(task_named(task), max_drop)
    done = finished_before(out, resume=resume)
    if out is not None and done is None:
        check_output(Path(out))
    model, source = start_of(model, data, measured, options)
    started = perf_counter()
    with ExitStack() as around:
        heard = around.enter_context(hearing())
        shelf = None if out is None else around.enter_context(unfinished(Path(out)))
        opened = open_model(model, tokenizer, dtype=recipe.dtype, device=recipe.device)
        if out is not None:
            require_one_dtype(opened)
        around.enter_context(evaluating(opened.model))
        require_head(opened.model, limit.task)
        length = task_length(opened, limit.task, None)
        questions = prepare_task(limit.task, task_data, opened.tokenizer, length, max_examples, recipe.seed)
        questions.check(opened.model)
        prepared = (
            prepare(opened, recipe, data) if source is None else prepare_measured(opened, recipe, source)
        )
        where = prepared.samples.protocol["source"], questions.protocol["data"]
        notes = require_apart(data, where[0], task_data, where[1])
        if recipe.of != "latency" or prepared.measurement is not None:
            shares_of(prepared, recipe)
        if shelf is not None:
            asked = _identity(limit, questions, max_trials)
            prepared = begun(shelf, prepared, recipe, None, gate=asked)
        if done is not None:
            return _gated(of_before(done, out, opened.tokenizer, prepared.anatomy.ranks))
        run = Trials(prepared, recipe, limit, questions, progress, heard)
        run.seconds["prepare"] = perf_counter() - started
        try:
            result = _result(run, max_trials, notes)
            if out is None or shelf is None:
                return result
            narrowed = replace(anatomy_of(opened.model), shelf=shelf)
            return cast(Gated, saved(result, prepared, narrowed, Path(out), shelf.folder, progress))
        except BaseException:
            run.dense_again()
            raise


def _recipe(options: Mapping[str, Any], max_trials: int) -> Recipe:
    for name in INSTEAD:
        if options.get(name):
            raise InputError(f"both {name} and max_drop are given; max_drop finds what to keep. Give one.")
    if isinstance(max_trials, bool) or not isinstance(max_trials, int) or max_trials < 1:
        raise InputError(f"max_trials is {max_trials!r}; give a whole number of at least 1.")
    rest = {name: value for name, value in options.items() if name not in INSTEAD}
    return Recipe.of_options({**rest, "keep": 1.0})


def _identity(limit: Limit, questions: Questions, max_trials: int) -> dict[str, Any]:
    """What the trials depend on, besides the run."""
    content = sha256(repr(questions.questions).encode()).hexdigest()
    return {
        "task": limit.task.name,
        "max_drop": limit.max_drop,
        "max_trials": max_trials,
        "content": content,
        "protocol": questions.protocol,
    }


def _result(run: Trials, max_trials: int, notes: tuple[str, ...]) -> Gated:
    """Ask, measure, try, and leave the model that was chosen in place."""
    untried = run.search(max_trials)
    made = run.chosen()
    gate = Gate(
        task=run.limit.task.name,
        metric=run.dense.metric,
        unit=run.limit.unit,
        max_drop=float(run.limit.max_drop),
        dense=run.dense.score,
        of=run.recipe.of,
        keep=made.trial.keep,
        trials=tuple(run.trials),
        untried=untried,
        examples=run.dense.examples,
        protocol=run.dense.protocol,
        notes=(*notes, *run.dense.notes),
        max_trials=max_trials,
    )
    record = record_of(run.prepared, made.recipe, made.plan, made.trace) | {"gate": gate.to_json()}
    opened = run.prepared.opened
    return Gated(opened.model, made.plan, made.trace, record, opened.tokenizer, gate=gate)


def _gated(before: Result) -> Gated:
    rest = {name: value for name, value in vars(before).items() if name != "gate"}
    return Gated(**rest, gate=Gate.of_json(before.record["gate"]))
