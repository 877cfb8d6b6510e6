"""What a result depends on, by name: a run that goes on must be the run that began."""

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import torch
import transformers

from statprune.anatomy.ranks import Ranks, from_each
from statprune.checkpoint.unfinished import differences
from statprune.errors import InputError
from statprune.measurement import Measurement
from statprune.preparation import Prepared
from statprune.recipe import Recipe
from statprune.sampling import digest_of
from statprune.version import __version__


def identity_of(prepared: Prepared, recipe: Recipe) -> dict[str, Any]:
    """Options, model, data, plan and versions, JSON-able."""
    measured = prepared.measurement
    return {
        "options": recipe.to_json(),
        "model": {"type": prepared.opened.model.config.model_type, "weights": prepared.fingerprint},
        "data": {
            "samples": prepared.samples.protocol["samples"],
            "tokens": prepared.samples.tokens,
            "content": digest_of(prepared.samples),
        },
        "plan": None if prepared.plan is None else prepared.plan.to_json() | {"why": ""},
        "measured": None if measured is None else {**measured.about, "content": _digest_measured(measured)},
        "versions": {
            "statprune": __version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }


def require_same(identity: Mapping[str, Any], ranks: Ranks) -> None:
    """That all processes of a run are about to do the same; the first one's word counts.

    Raises:
        InputError: this one would not; names what differs.
    """
    differing = differences(ranks.same(identity if ranks.rank == 0 else None), identity)
    if differing:
        raise InputError(
            f"this process was given something else than rank 0: {'; '.join(differing)}. Give all the same."
        )
    from_each(ranks, None)


def _digest_measured(measurement: Measurement) -> str:
    curves = [
        (name, curve.error.tolist(), [tuple(pair) for pair in curve.measured])
        for name, curve in sorted([*measurement.curves.items(), *measurement.values.items()])
    ]
    latency = None if measurement.latency is None else measurement.latency.to_json()
    return sha256(json.dumps([curves, latency]).encode()).hexdigest()
