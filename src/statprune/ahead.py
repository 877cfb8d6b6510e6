"""What lies ahead of a run that is prepared: its stages and their work, for whoever listens."""

from collections.abc import Sequence
from dataclasses import replace

from statprune.anatomy.sites import Site
from statprune.budget.curves import Curves
from statprune.budget.plan import Plan
from statprune.calibration.batches import Batch
from statprune.engine.divergence import HOLD_OUT, PROBE_TOKENS, UNSURE, outputs_on_one, probe_batches
from statprune.engine.few_tokens import added_to, wanted_of
from statprune.engine.outlook import (
    Load,
    ask_ahead,
    compare_ahead,
    latency_ahead,
    measure_ahead,
    prune_ahead,
    refit_ahead,
    save_ahead,
    survey_ahead,
)
from statprune.engine.progress import NOTHING, Facts, Progress, Stage, Work, no_progress
from statprune.engine.search import TRIALS
from statprune.engine.stat import Decide
from statprune.engine.survey import to_survey
from statprune.preparation import STAT_WIDTHS, Prepared
from statprune.recipe import Recipe


def tell_prepared(
    progress: Progress, prepared: Prepared, recipe: Recipe, *, dry_run: bool = False, saves: bool
) -> None:
    """Tell that `compress` is prepared, and what lies ahead of it."""
    if progress is no_progress:
        return
    if prepared.plan is not None:
        stages = [] if dry_run else _cutting(prepared, recipe, prepared.plan)
    elif recipe.method == "stat":
        stages = [measure_ahead(prepared.anatomy, Load.of(prepared.samples.batches))]
        if not dry_run:
            stages.append(_pruning(prepared, None, measured=True))
    else:
        stages = _choosing(prepared, recipe)
        if not dry_run:
            stages += _refitting(prepared, _guessed(prepared, recipe))
    device = str(prepared.opened.model.device)
    progress("prepare", 1, 1, Facts(ahead=_saving(stages, prepared, saves and not dry_run), device=device))


def tell_measuring(progress: Progress, prepared: Prepared, *, latency: bool) -> None:
    """Tell that `plan` is prepared, and what lies ahead of it."""
    if progress is no_progress:
        return
    device = str(prepared.opened.model.device)
    progress("prepare", 1, 1, Facts(ahead=_surveying(prepared, latency=latency), device=device))


def tell_chosen(progress: Progress, prepared: Prepared, recipe: Recipe, plan: Plan, *, saves: bool) -> None:
    """Tell that the plan is made, and what it leaves to do."""
    if progress is not no_progress:
        stages = _cutting(prepared, recipe, plan)
        progress("choose", 1, 1, Facts(ahead=_saving(stages, prepared, saves)))


def foreseeing(
    progress: Progress, prepared: Prepared, recipe: Recipe, rule: Decide, *, saves: bool
) -> Progress:
    """The same `progress`, which is told while method stat measures whether heads will be cut at all.

    That is half of what is left to do. What the curves of some blocks would decide, if all others were like
    the last of them, is found where it is cheap: for uniform widths, behind 1, 2, 4, 8 ... blocks.
    """
    widths = recipe.widths or STAT_WIDTHS.get(prepared.anatomy.entry.kind, "per-layer")
    if progress is no_progress or widths == "per-layer" or len(prepared.anatomy.runs) > 1:
        return progress

    def told(stage: str, done: int, blocks: int, facts: Facts = NOTHING, /) -> None:
        if stage == "measure" and facts.curves is not None and (not done & (done - 1) or done == blocks):
            seen = _continued(facts.curves, prepared.anatomy.sites)
            if seen is not None:
                stages = [_pruning(prepared, rule(seen), measured=True)]
                facts = replace(facts, ahead=_saving(stages, prepared, saves))
        progress(stage, done, blocks, facts)

    return told


def _continued(curves: Curves, sites: Sequence[Site]) -> Curves | None:
    """The curves, and for sites without one that of the last alike; None if a site has none alike."""
    found, alike = dict(curves), {}
    for site in sites:
        if site.name in found:
            alike[site.part, site.units] = found[site.name]
        elif (site.part, site.units) in alike:
            found[site.name] = alike[site.part, site.units]
        else:
            return None
    return found


def trial_ahead(prepared: Prepared, recipe: Recipe, scored: Stage) -> list[Stage]:
    """Narrowing to a share, whichever, and asking what came out."""
    if recipe.method == "stat":
        measured = measure_ahead(prepared.anatomy, Load.of(prepared.samples.batches))
        return [measured, _pruning(prepared, None, measured=True), scored]
    return [*_refitting(prepared, _guessed(prepared, recipe)), scored]


def tell_trying(
    progress: Progress, prepared: Prepared, recipe: Recipe, trial: Sequence[Stage], trials: int
) -> None:
    """Tell that a run of several trials is prepared: the dense model is asked and measured, then they."""
    if progress is no_progress:
        return
    stages = [] if recipe.method == "stat" else _choosing(prepared, recipe)
    ahead = _saving([trial[-1], *stages, *trials * list(trial)], prepared, saves=True)
    progress("prepare", 1, 1, Facts(ahead=ahead, device=str(prepared.opened.model.device)))


def in_trial(
    progress: Progress, prepared: Prepared, told: str, trial: Sequence[Stage], more: int, *, saves: bool
) -> Progress:
    """The same `progress`, told besides what comes behind a trial's cuts: its score, `more` trials, the end.

    `told` says in words which trial it is.
    """
    if progress is no_progress:
        return progress

    def heard(stage: str, done: int, blocks: int, facts: Facts = NOTHING, /) -> None:
        if facts.ahead is not None:
            behind = _saving([trial[-1], *more * list(trial)], prepared, saves)
            facts = replace(facts, ahead=[*facts.ahead, *behind])
        progress(stage, done, blocks, replace(facts, trial=told))

    return heard


def _saving(stages: list[Stage], prepared: Prepared, saves: bool) -> list[Stage]:
    return [*stages, save_ahead(prepared.opened.model)] if saves else stages


def _cutting(prepared: Prepared, recipe: Recipe, plan: Plan) -> list[Stage]:
    """Carrying out a plan."""
    if recipe.method != "stat":
        return _refitting(prepared, {name: float(width) for name, width in plan.widths.items()})
    return [_pruning(prepared, plan, measured=False)]


def _pruning(prepared: Prepared, plan: Plan | None, *, measured: bool) -> Stage:
    """Cutting by method stat, everywhere if there is no plan yet; `measured` neurons have their factors."""
    anatomy = prepared.anatomy
    sites = [site for site in anatomy.sites if plan is None or plan[site] < site.units]
    again = not measured or anatomy.shelf.lends
    return prune_ahead(anatomy, Load.of(prepared.samples.batches), sites, again=again)


def _choosing(prepared: Prepared, recipe: Recipe) -> list[Stage]:
    """Measuring, unless that has been done, and searching if that is asked for."""
    stages = []
    if prepared.measurement is None:
        stages += _surveying(prepared, latency=recipe.of == "latency")
    if recipe.search:
        part = Load.of(to_survey(prepared.anatomy, prepared.samples.batches))
        trial = refit_ahead(prepared.anatomy, part, _guessed(prepared, recipe))
        stages.append(Stage("search", (sum(trial.work, Work()),) * TRIALS))
    return stages


def _surveying(prepared: Prepared, *, latency: bool) -> list[Stage]:
    model, anatomy, batches = prepared.opened.model, prepared.anatomy, prepared.samples.batches
    unit, of_tokens = outputs_on_one(model, anatomy, batches[0])
    # Which samples are least sure is not known yet, but how many tokens are taken.
    probe = Load.of(probe_batches(batches, of_tokens=of_tokens))
    asked = [ask_ahead(anatomy, Load.of(batches))] if unit == UNSURE else []
    stages = [*asked, *survey_ahead(model, anatomy, Load.of(to_survey(anatomy, batches)), probe)]
    first: list[Batch] = [batches[0]]
    return [*stages, latency_ahead(anatomy, Load.of(first))] if latency else stages


def _guessed(prepared: Prepared, recipe: Recipe) -> dict[str, float]:
    """Widths before there is a plan: the same share of each site."""
    return {site.name: site.units * float(recipe.keep or 1.0) for site in prepared.anatomy.sites}


def _refitting(prepared: Prepared, widths: dict[str, float]) -> list[Stage]:
    model, anatomy, batches = prepared.opened.model, prepared.anatomy, prepared.samples.batches
    compared = min(PROBE_TOKENS, Load.of(batches).tokens[-1] // HOLD_OUT)
    added: list[Batch] = []
    if any(widths[site.name] < site.units for site in anatomy.sites):
        unit, of_tokens = outputs_on_one(model, anatomy, batches[0])
        added = added_to(anatomy, batches, wanted_of(unit, of_tokens=of_tokens))
    stage = refit_ahead(anatomy, Load.of([*batches, *added]), widths)
    return [stage, compare_ahead(model, compared, 1)]
