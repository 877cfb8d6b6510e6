"""What a result depends on, by name: a run that goes on must be the run that began."""

from hashlib import sha256
from typing import Any

import torch
import transformers

from statprune.calibration.samples import Samples
from statprune.checkpoint.unfinished import digest_tensors
from statprune.preparation import Prepared
from statprune.recipe import Recipe
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
            "content": _digest(prepared.samples),
        },
        "plan": None if prepared.plan is None else dict(prepared.plan.widths),
        "measured": None if measured is None else dict(measured.about),
        "versions": {
            "statprune": __version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }


def _digest(samples: Samples) -> str:
    digest = sha256()
    for batch in samples.batches:
        digest_tensors(digest, batch)
    return digest.hexdigest()
