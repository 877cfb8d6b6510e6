"""Labels: what stands in the data, what the model's outputs are called, and how the two fit."""

import math
from collections.abc import Sequence
from typing import Any

from statprune.errors import DataError, ModelError
from statprune.evaluation.tasks import Task


def label_of(cell: Any, task: Task, place: str) -> float | None:
    """The number of a label, or the score; None where it is withheld: null, or of a class -1.

    Args:
        cell: A number, or of classes also the label's name.
        task: What it is a label of.
        place: Where it stands.

    Raises:
        DataError: It is neither.
    """
    if cell is None:
        return None
    if task.kind == "score":
        return _score(cell, place)
    named = {plain(name): number for number, name in enumerate(task.label_names)}
    if isinstance(cell, str):
        if plain(cell) in named:
            return named[plain(cell)]
        cell = int(cell) if cell.strip().lstrip("-").isdecimal() else cell
    if isinstance(cell, str | bool) or not isinstance(cell, int | float) or cell != cell // 1:
        raise DataError(f"{place}: label {cell!r} is not among those of {task.name}: {listed(task)}")
    if cell == -1:
        return None
    if not 0 <= cell < len(task.label_names):
        raise DataError(f"{place}: label {cell!r} is not among those of {task.name}: {listed(task)}")
    return int(cell)


def order_of(model: Any, task: Task) -> tuple[list[int], str]:
    """The task's label number of each of the model's outputs, and by what they were matched.

    Raises:
        ModelError: The counts differ, or only some of the names are the same.
    """
    own = names_of(model)
    kind = type(model).__name__
    told = f"{kind} has {len(own)} labels ({', '.join(own)})"
    if task.kind == "score":
        if len(own) != 1:
            raise ModelError(f"{told}, but {task.name} asks for one number; take a model with num_labels 1.")
        return [0], "one number"
    if len(own) != len(task.label_names):
        raise ModelError(
            f"{told}, but {task.name} has {len(task.label_names)} ({', '.join(task.label_names)}); "
            f"take a model that was trained on it, or the task that the model was trained on."
        )
    wanted = {plain(name): number for number, name in enumerate(task.label_names)}
    same = [plain(name) for name in own if plain(name) in wanted]
    if len(set(same)) == len(wanted):
        return [wanted[name] for name in same], "by name"
    if same:
        raise ModelError(
            f"{told}, but {task.name} has {', '.join(task.label_names)}: some names are the same and some "
            f"are not, so which is which is not clear; name all as the task does in id2label of config.json."
        )
    return list(range(len(own))), "by number"


def names_of(model: Any) -> list[str]:
    """What the model calls its outputs, by their number."""
    named = getattr(model.config, "id2label", None) or {}
    return [str(named.get(number, number)) for number in range(int(model.config.num_labels))]


def plain(name: str) -> str:
    """A label's name without what people write differently."""
    return name.strip().lower().replace("-", "_").replace(" ", "_")


def listed(task: Task) -> str:
    """The task's labels, with their numbers."""
    return ", ".join(f"{number} {name}" for number, name in enumerate(task.label_names))


def counted(labels: Sequence[float], task: Task) -> dict[str, int]:
    """How many examples have each label."""
    return {name: sum(label == number for label in labels) for number, name in enumerate(task.label_names)}


def _score(cell: Any, place: str) -> float:
    try:
        score = math.nan if isinstance(cell, bool) else float(cell)
    except (TypeError, ValueError):
        score = math.nan
    if not math.isfinite(score):
        raise DataError(f"{place}: label {cell!r} is not a number; mend or drop the record")
    return score
