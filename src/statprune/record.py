"""What a run leaves to be read: everything needed to understand and to repeat it."""

from pathlib import Path
from typing import Any

import torch
import transformers

from statprune.budget.cost import Cost
from statprune.budget.plan import Plan
from statprune.budget.size import size_of
from statprune.card.dense_model import base_of
from statprune.engine.trace import Trace
from statprune.preparation import Prepared
from statprune.recipe import Recipe
from statprune.sampling import digest_of
from statprune.version import __version__


def record_of(prepared: Prepared, recipe: Recipe, plan: Plan, trace: Trace) -> dict[str, Any]:
    """The content of statprune.json, JSON-able."""
    sites, model, name = prepared.anatomy.sites, prepared.opened.model, prepared.opened.name
    size = size_of(model) if trace.sites else None  # without, the model is as it was
    costs = [Cost("params", prepared.context), Cost("macs", prepared.context)]
    return {
        "statprune": __version__,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        # Only the name of an absolute path: the record is saved with the model.
        "model": Path(name).name if Path(name).is_absolute() else name,
        "licence": base_of(name, prepared.opened.source, str(model.name_or_path)).licence,
        "model_type": model.config.model_type,
        "dtype": str(model.dtype).removeprefix("torch."),
        "recipe": recipe.to_json(),
        "plan": plan.to_json(),
        "units": {site.name: site.units for site in sites},
        "cost": {
            cost.of: {
                "dense": cost.dense(sites),
                "kept": cost.of_plan(plan, sites),
                "share": cost.of_plan(plan, sites) / cost.dense(sites),
            }
            for cost in costs
        },
        "parameters": {"dense": prepared.dense.parameters, "kept": None if size is None else size.parameters},
        "bytes": {"dense": prepared.dense.bytes, "kept": None if size is None else size.bytes},
        "context": prepared.context,
        "data": prepared.samples.protocol,
        "fingerprints": {"weights": prepared.fingerprint, "samples": digest_of(prepared.samples)},
        "notes": list(prepared.notes),
        "trace": trace.to_json(),
        "curves": dict(trace.curves),
    }
