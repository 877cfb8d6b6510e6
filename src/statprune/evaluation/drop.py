"""How far a score has fallen, how far it may, and what was tried."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import isfinite, log1p
from pathlib import Path
from typing import Any

from statprune.errors import DataError, InputError
from statprune.evaluation.tasks import Task

POINTS, PER_CENT = "points", "per cent of the dense perplexity"
ROUNDING = 1e-9
"""Two scores of whole examples whose difference is the limit may differ by so much more."""


@dataclass(frozen=True)
class Limit:
    """How far a task's headline metric may fall: points, or per cent of a perplexity.

    Attributes:
        task: the task.
        max_drop: at least 0, in `unit`.
    """

    task: Task
    max_drop: float

    def __post_init__(self) -> None:
        value = self.max_drop
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not isfinite(value) or value < 0:
            raise InputError(
                f"max_drop is {value!r}; give a number of {self.unit}, at least 0, as in max_drop=1.0."
            )

    @property
    def unit(self) -> str:
        """What a drop is counted in."""
        return POINTS if self.task.higher_is_better else PER_CENT

    def drop(self, dense: float, score: float) -> float:
        """How far `score` lies behind that of the dense model; negative where it is better."""
        return dense - score if self.task.higher_is_better else 100 * (score / dense - 1)

    def allows(self, drop: float) -> bool:
        """Whether a drop is within the limit."""
        return drop <= self.max_drop + ROUNDING

    def harm(self, drop: float) -> float:
        """The divergence of outputs that such a drop goes with, roughly: a guess, which trials correct.

        Of a perplexity that is ln(perplexity / dense perplexity). A choice of a hundred that goes wrong took
        about one nat, within a factor of some three (benchmarks/quality).
        """
        return drop / 100 if self.task.higher_is_better else log1p(drop / 100)


@dataclass(frozen=True)
class Trial:
    """One model that was made and asked.

    Attributes:
        keep: the share that was to be kept at most.
        share: the share that its plan keeps.
        score: the headline metric; None where it was not a finite number.
        drop: how far that lies behind the dense score.
        passes: whether that is within the limit.
        predicted: the damage that was predicted for its plan; None for method stat.
        seconds: of making it and asking it.
    """

    keep: float
    share: float
    score: float | None
    drop: float | None
    passes: bool
    predicted: float | None
    seconds: float


@dataclass(frozen=True)
class Gate:
    """What a score was allowed to lose, and which trials showed what it loses.

    Attributes:
        task: the task's name.
        metric: its headline metric.
        unit: what drops are counted in.
        max_drop: the largest drop allowed.
        dense: the dense model's score.
        of: what shares are of.
        keep: the share of the trial that was chosen: the smallest that passes.
        trials: in the order in which they were tried.
        untried: shares of the grid between the one chosen and the next smaller one that failed.
        examples: how many were asked.
        protocol: that of the dense score, which is that of the trials.
        notes: what the user should know, one sentence each.
        max_trials: trials allowed.
    """

    task: str
    metric: str
    unit: str
    max_drop: float
    dense: float
    of: str
    keep: float
    trials: tuple[Trial, ...]
    untried: tuple[float, ...]
    examples: int
    protocol: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    max_trials: int | None = None

    @property
    def chosen(self) -> Trial:
        """The trial whose model was kept."""
        return next(trial for trial in self.trials if trial.keep == self.keep)

    def to_json(self) -> dict[str, Any]:
        """JSON-able content."""
        return asdict(self) | {
            "trials": [asdict(trial) for trial in self.trials],
            "untried": list(self.untried),
            "notes": list(self.notes),
        }

    @staticmethod
    def of_json(content: Mapping[str, Any]) -> "Gate":
        """What `to_json` gave."""
        tuples = {"untried": tuple(content["untried"]), "notes": tuple(content["notes"])}
        return Gate(**{**content, "trials": tuple(Trial(**each) for each in content["trials"]), **tuples})


def told(trials: list[Trial]) -> str:
    """Trials in one line, the largest share first."""
    return ", ".join(
        f"{trial.keep:g} (no finite score)"
        if trial.score is None
        else f"{trial.keep:g} ({trial.score:.4f}, drop {trial.drop:.4f})"
        for trial in sorted(trials, key=lambda trial: -trial.keep)
    )


def require_apart(
    data: Any, calibration: Mapping[str, Any], task_data: Any, validation: Mapping[str, Any]
) -> tuple[str, ...]:
    """Refuse a validation set that weights are fitted to; a note where only names of files are the same.

    Args:
        data: what was given to calibrate on; None where a measurement brings its samples.
        calibration: where the samples came from (`calibration.sources.described`).
        task_data: what was given to validate on; None for the task's own data on the hub.
        validation: where that came from.

    Raises:
        DataError: both are the same part of the same source, or share a file.
    """
    keys = ("source", "kind", "config", "split", "files")
    alike = all(calibration.get(key) == validation.get(key) for key in keys)
    if isinstance(data, str | Path) and isinstance(task_data, str | Path):
        if "hub" not in (calibration["kind"], validation["kind"]):
            # Whatever they are called: one path can be written in many ways.
            alike = not _files(data, calibration).isdisjoint(_files(task_data, validation))
    elif isinstance(task_data, str | Path) and alike and calibration["kind"] != "hub":
        name = validation["source"]
        return (
            f"the samples of the measurement came from a file of the same name as the validation data, "
            f"{name}: if it is the same file, drops are too small",
        )
    elif task_data is not None and not isinstance(task_data, str | Path):
        alike = data is task_data
    if alike:
        split = f", split {validation['split']}" if validation.get("split") else ""
        raise DataError(
            f"{validation['source']}{split} is both calibration and validation data: weights are fitted to "
            f"it, so its drop says little. Validate on another part of the data (task_data, --task-data)."
        )
    return ()


def _files(given: str | Path, found: Mapping[str, Any]) -> set[tuple[Path, str | None]]:
    """The files of a local source; of a saved data set its folder, and the split that was read."""
    place = _place(given)
    if found["kind"] == "folder":
        return {((place / name).resolve(), None) for name in found["files"]}
    return {(place, found["split"])}


def _place(given: str | Path) -> Path:
    """A local source without its split."""
    path = Path(os.path.expanduser(given))
    return (path if path.exists() else Path(str(path).rpartition("@")[0])).resolve()
