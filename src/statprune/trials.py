"""Models of one share after the other, each made from the same measurement, and asked."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import isfinite
from time import perf_counter

from transformers import PreTrainedModel

from statprune.ahead import in_trial, tell_trying, trial_ahead
from statprune.anatomy.lookup import anatomy_of
from statprune.anatomy.shelf import IN_MEMORY, State
from statprune.answers import budget_for, share_of, shares_of
from statprune.budget.latency import Latency
from statprune.budget.plan import Plan
from statprune.budget.shares import STEPS, Bracket
from statprune.checkpoint.classes import RENAMED
from statprune.checkpoint.widths import adopt
from statprune.engine.outlook import score_ahead
from statprune.engine.progress import Progress
from statprune.engine.trace import Trace
from statprune.errors import BudgetError, NonFiniteError, VerificationError
from statprune.evaluation.drop import Limit, Trial, told
from statprune.evaluation.scoring import BATCH_TOKENS, TaskResult
from statprune.evaluation.scoring import Prepared as Questions
from statprune.pipeline import narrow
from statprune.planning import hearing, surveyed
from statprune.preparation import Prepared, value_dim_of
from statprune.recipe import Recipe
from statprune.surgery.undo import remember


@dataclass(frozen=True, eq=False)
class Made:
    """A model that was made, and how: `again` puts it back in place."""

    trial: Trial
    recipe: Recipe
    plan: Plan
    trace: Trace
    again: Callable[[], None]


class Trials:
    """What is known of a model and its narrowed forms; it is narrowed in place and put back, again and again.

    Args:
        prepared: the run, with the shelf that keeps what was done.
        recipe: what all trials share; its `keep` is 1.
        limit: how far the score may fall.
        questions: the validation set.
        progress: as for `compress`.
        heard: warnings so far; those of the run as they come.
    """

    def __init__(
        self,
        prepared: Prepared,
        recipe: Recipe,
        limit: Limit,
        questions: Questions,
        progress: Progress,
        heard: list[str],
    ) -> None:
        self.prepared, self.recipe, self.limit = prepared, recipe, limit
        self._questions, self._progress, self._heard = questions, progress, heard
        self._model, self._shelf = prepared.opened.model, prepared.anatomy.shelf
        scored = score_ahead(self._model, prepared.anatomy, questions.questions.lengths, BATCH_TOKENS)
        self._ahead = trial_ahead(prepared, recipe, scored)
        self._best: Made | None = None
        self._saves = self._shelf is not IN_MEMORY
        self._before: list[str] = []
        self.dense_again = _as_now(self._model)
        self.dense: TaskResult
        self.trials: list[Trial] = []
        self.seconds: dict[str, float] = {}

    def search(self, most: int) -> tuple[float, ...]:
        """Ask the dense model, measure it, and try shares, `most` at most; the model is left dense.

        Returns:
            The shares that were left out between the smallest that passes and the largest that fails below.

        Raises:
            BudgetError: no trial passes.
            NonFiniteError: the dense model has no score.
        """
        tell_trying(self._progress, self.prepared, self.recipe, self._ahead, min(most, STEPS.bit_length()))
        self.dense = self._dense_score()
        self._measure()
        started = perf_counter()
        shares = shares_of(self.prepared, self.recipe)
        bracket = Bracket.around(shares)
        outcomes: dict[tuple[int | None, ...], bool] = {}
        while bracket.open and len(self.trials) < most:
            position = bracket.next(self._guess(shares, most))
            plan, more = self._plan(shares[position]), min(bracket.most(), most - len(self.trials)) - 1
            widths = None if plan is None else plan.key
            passes = outcomes.get(widths) if widths is not None else None
            if passes is None:
                passes = self._try(shares[position], more)
                if widths is not None:
                    outcomes[widths] = passes
            bracket.note(position, passes=passes)
        self.seconds["trials"] = perf_counter() - started
        if not any(trial.passes for trial in self.trials):
            self._refuse(bracket.open, most)
        return tuple(shares[bracket.failed + 1 : bracket.passed])

    def chosen(self) -> Made:
        """The smallest model that passes, in place.

        Raises:
            VerificationError: it was tried before the run went on, and made again it does not pass.
        """
        best = min((trial for trial in self.trials if trial.passes), key=lambda trial: trial.keep)
        made = self._best
        if made is None or made.trial.keep != best.keep:
            made = self._made(best.keep, 0)
            if not made.trial.passes:
                raise VerificationError(
                    f"keep {best.keep:g} scored {best.score} before this run went on, and {made.trial.score} "
                    f"now; begin again, without --resume."
                )
            self.trials[self.trials.index(best)] = made.trial
        made.again()
        made.trace.warnings[:0] = self._before
        made.trace.seconds = self.seconds | {
            name: time for name, time in made.trace.seconds.items() if name not in self.seconds
        }
        return made

    def _refuse(self, unfinished: bool, most: int) -> None:
        limit, dense = self.limit, self.dense
        cut = f" max_trials {most} left shares untried: allow more, or" if unfinished else ""
        tried = told(self.trials) or "nothing: no share of the grid has a plan"
        raise BudgetError(
            f"{dense.metric} of {dense.task} may fall by {limit.max_drop:g} {limit.unit}, from "
            f"{dense.score:.4f}, and falls further with every share of {self.recipe.of} tried: {tried}. "
            f"Nothing is written."
            f"{cut} {'allow' if cut else 'Allow'} a larger drop, or give more calibration samples."
        )

    def _dense_score(self) -> TaskResult:
        started = perf_counter()
        earlier = self._shelf.earlier("dense", 0)
        if earlier is not None:
            found = TaskResult(**{**earlier.facts, "notes": tuple(earlier.facts["notes"])})
        else:
            found = self._scored(self._progress)
            self._shelf.note("dense", 0, State(facts=found.to_json()))
        self.seconds["dense score"] = perf_counter() - started
        if not isfinite(found.score) or (found.score == 0 and not found.higher_is_better):
            raise NonFiniteError(
                f"the dense model's {found.metric} is {found.score}; there is no drop of it."
            )
        return found

    def _scored(self, progress: Progress) -> TaskResult:
        return self._questions.score(self._model, told=lambda done, rows: progress("evaluate", done, rows))

    def _measure(self) -> None:
        """Measure once, unless it is done; from then on trials keep nothing on the shelf."""
        measurement, latency = self.prepared.measurement, self.recipe.of == "latency"
        started = perf_counter()
        if self.recipe.method == "refit" and measurement is None:
            measurement = surveyed(self.prepared, with_latency=latency, progress=self._progress)
            if measurement.latency is not None:  # other times each time
                earlier = self._shelf.earlier("latency", 0)
                timed = measurement.latency if earlier is None else Latency.of_json(earlier.facts)
                self._shelf.note("latency", 0, State(facts=timed.to_json()))
                measurement = replace(measurement, latency=timed)
            self.seconds["survey"] = perf_counter() - started
        anatomy = replace(self.prepared.anatomy, shelf=IN_MEMORY)
        self.prepared = replace(self.prepared, plan=None, anatomy=anatomy, measurement=measurement)
        self._before = list(self._heard)

    def _try(self, keep: float, more: int) -> bool:
        """Make and ask the model of this share, or recall it; whether it passes."""
        number = round(keep * STEPS)
        earlier = self._shelf.earlier("trial", number)
        if earlier is not None:
            trial = Trial(**earlier.facts)
        else:
            try:
                made = self._made(keep, more)
            except BudgetError:  # no plan of the rule fits
                self.dense_again()
                return False
            trial = made.trial
            self.dense_again()
            self._shelf.note("trial", number, State(facts=vars(trial)))
            if trial.passes:
                self._best = made
        self.trials.append(trial)
        return trial.passes

    def _made(self, keep: float, more: int) -> Made:
        """The model narrowed to this share, in place, and asked."""
        started = perf_counter()
        name = f"trial {len(self.trials) + 1}, keep {keep:g}"
        best = min((trial.keep for trial in self.trials if trial.passes), default=None)
        if best is not None:
            name += f" ({best:g} passes)"
        progress = in_trial(self._progress, self.prepared, name, self._ahead, more, saves=self._saves)
        recipe = replace(self.recipe, keep=keep)
        with hearing() as heard:
            trace = Trace(warnings=heard)
            plan = narrow(self.prepared, recipe, trace, progress, saves=False)
        adopt(self._model, anatomy_of(self._model))
        score: float | None = None
        try:
            score = self._scored(progress).score
        except NonFiniteError:
            score = None
        score = score if score is not None and isfinite(score) else None
        drop = None if score is None else self.limit.drop(self.dense.score, score)
        budget, _ = budget_for(self.prepared, self.recipe)
        trial = Trial(
            keep=keep,
            share=share_of(budget, plan, self.prepared),
            score=score,
            drop=drop,
            passes=drop is not None and self.limit.allows(drop),
            predicted=trace.predicted,
            seconds=perf_counter() - started,
        )
        return Made(trial, recipe, plan, trace, _as_now(self._model))

    def _plan(self, keep: float) -> Plan | None:
        """What the measurement answers to this share; None for method stat, and where nothing fits."""
        measurement = self.prepared.measurement
        if self.recipe.method == "stat" or measurement is None:
            return None
        budget, _ = budget_for(self.prepared, self.recipe)
        try:
            return measurement.allocate(
                replace(budget, keep=keep),
                self.recipe.widths or "per-layer",
                value_dim=value_dim_of(self.recipe, self.prepared),
            )
        except BudgetError:
            return None

    def _guess(self, shares: list[float], most: int) -> float | None:
        """The smallest share whose predicted damage goes with a drop within the limit.

        For the second trial the first says how drop and damage go together here; then None. A last trial
        goes to the largest share where none has passed.
        """
        if len(self.trials) == most - 1 > 0 and not any(trial.passes for trial in self.trials):
            return shares[-1]
        if self.recipe.method == "stat" or len(self.trials) > 1:
            return None
        allowed = self.limit.harm(self.limit.max_drop)
        if self.trials:
            drop, predicted = self.trials[0].drop, self.trials[0].predicted
            if not drop or drop <= 0 or not predicted:
                return None
            allowed *= predicted / self.limit.harm(drop)
        bracket = Bracket.around(shares)
        while bracket.open:
            position = bracket.next()
            bracket.note(position, passes=self._predicted(shares[position]) <= allowed)
        return shares[min(bracket.passed, len(shares) - 1)]

    def _predicted(self, keep: float) -> float:
        plan, measurement = self._plan(keep), self.prepared.measurement
        return float("inf") if plan is None or measurement is None else measurement.predicted(plan)


def _as_now(model: PreTrainedModel) -> Callable[[], None]:
    """A function that puts the model back as it is now, also in how its weights are named when saved."""
    restore, renamed = remember(model), vars(model).get(RENAMED)

    def again() -> None:
        restore()
        vars(model).pop(RENAMED, None)
        if renamed is not None:
            vars(model)[RENAMED] = renamed

    return again
