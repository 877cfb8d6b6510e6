"""What a measurement's file must hold, checked before anything is made of it."""

from collections.abc import Mapping
from math import isfinite, isnan
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from statprune.budget.damage import DamageCurve
from statprune.budget.latency import Latency
from statprune.calibration.batches import MASKS
from statprune.calibration.given import check_ids, given, taken_by
from statprune.calibration.samples import Samples
from statprune.errors import DataError, PlanError

_KINDS: dict[str, tuple[type | tuple[type, ...], str]] = {
    "model": (str, "a name"),
    "fingerprint": (str, "a digest"),
    "context": (int, "a whole number"),
    "about": (dict, "an object"),
    "data": (dict, "an object"),
    "curves": (dict, "an object"),
    "latency": ((dict, type(None)), "an object or null"),
}


def require_parts(content: Mapping[str, Any], path: Path) -> None:
    """Raise PlanError where a part of the file at `path` is missing, or of another kind than written."""
    for part, (kind, wanted) in _KINDS.items():
        if part not in content:
            raise PlanError(f"{path} lacks '{part}'. Measure again.")
        if not isinstance(content[part], kind) or isinstance(content[part], bool):
            raise PlanError(f"{path}: {part} is {content[part]!r:.80}, and not {wanted}. Measure again.")
    about, data = content["about"], content["data"]
    stock = about.get("stock_units") or {}
    right = {
        "context": content["context"] >= 1,
        "about.damage": isinstance(about.get("damage"), str),
        "about.stock_units": isinstance(stock, dict)
        and all(isinstance(each, list) for each in stock.values()),
        "data.tokens": isinstance(data.get("tokens"), int),
        "data.samples": isinstance(data.get("samples"), int),
    }
    for part, fits in right.items():
        if not fits:
            raise PlanError(f"{path}: {part} cannot be what was written. Measure again.")


def curves_of(content: Mapping[str, Any], path: Path) -> dict[str, DamageCurve]:
    """The damage curve of every site.

    Raises:
        PlanError: one is none.
    """
    return {name: _curve(given, f"{path}: the curve of {name}") for name, given in content.items()}


def _curve(content: Any, place: str) -> DamageCurve:
    try:
        error = np.array(content["error"], dtype=np.float64)
        measured = [(int(width), float(damage)) for width, damage in content["measured"]]
    except (KeyError, TypeError, ValueError) as reason:
        raise PlanError(f"{place} cannot be read ({reason}). Measure again.") from reason
    whole = error.ndim == 1 and len(error) > 1 and bool(np.isfinite(error).all()) and error.min() > -0.001
    if not whole or not all(0 <= width < len(error) and not isnan(damage) for width, damage in measured):
        raise PlanError(f"{place} holds what no measurement does. Measure again.")
    return DamageCurve(error, measured)


def latency_of(content: Any, sites: Mapping[str, Any], path: Path) -> Latency | None:
    """Seconds by width, where they were measured, of all `sites`.

    Raises:
        PlanError: they cannot be read.
    """
    if content is None:
        return None
    try:
        found = Latency.of_json(content)
    except (KeyError, TypeError, ValueError, AttributeError) as reason:
        raise PlanError(f"{path}: latency cannot be read ({reason}). Measure again.") from reason
    for name in sites:
        if not found.seconds.get(name) or not all(isfinite(seconds) for _, seconds in found.seconds[name]):
            raise PlanError(f"{path}: latency has no seconds of {name}. Measure again.")
    return found


def require_fitting(samples: Samples, model: PreTrainedModel, path: Path) -> None:
    """Raise PlanError where the samples in the file at `path` are none that `model` can read."""
    takes = taken_by(model)
    try:
        for number, batch in enumerate(samples.batches, start=1):
            strange = sorted(set(batch) - takes.names - {takes.main, *MASKS})
            if strange or MASKS[0] not in batch:
                raise DataError(f"batch {number} holds {', '.join(sorted(batch))}")
        given(samples.batches, takes)
        check_ids(samples, getattr(model.config, "vocab_size", None))
    except DataError as error:
        raise PlanError(
            f"{path} holds samples that this model cannot read: {error}. Measure again."
        ) from error
