"""What a run reports, in words."""

from typing import TYPE_CHECKING

from statprune.byte_size import byte_size

if TYPE_CHECKING:  # help and version do without torch
    from statprune.reports import Memory, Report

STAGES = {
    "prepare": "checking and loading",
    "measure": "measuring the dense model",
    "prune": "cutting neurons and heads",
    "ask": "asking the dense model",
    "survey": "measuring errors and damage",
    "compare": "comparing outputs",
    "latency": "timing widths",
    "choose": "choosing widths",
    "refit": "choosing and refitting",
    "search": "trying plans",
    "save": "saving and verifying",
    "evaluate": "evaluating",
}
UNITS = {"search": "plan", "evaluate": "sample"}


def told(stage: str) -> str:
    """A stage in words."""
    return STAGES.get(stage, stage)


def last_error(report: "Report") -> str:
    """The site narrowed last and its relative error."""
    return "" if report.site is None or report.error is None else f"{report.site} {report.error:.2%}"


def time_left(seconds: float | None) -> str:
    """Time left, to two digits: it is no more certain than that."""
    return "" if seconds is None else f"{duration(seconds)} left"


def time_spent(seconds: float) -> str:
    """Time since the run began."""
    return f"{duration(seconds)} so far"


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, to two digits."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def memory_told(memory: "Memory") -> str:
    """Memory in use, in words."""
    parts = (("memory", memory.resident), ("peak", memory.peak), ("GPU peak", memory.device))
    return ", ".join(f"{name} {byte_size(size)}" for name, size in parts if size is not None)
