"""Everything that can be refused is refused here, before the first pass over the data."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from statprune.anatomy.lookup import Anatomy, anatomy_of
from statprune.budget import plan as plans
from statprune.budget.allocate import Budget, published, uniform
from statprune.budget.cost import Cost
from statprune.budget.curves import Curves
from statprune.budget.plan import Plan
from statprune.calibration.samples import (
    CHARACTERS_PER_TOKEN,
    POOL_FACTOR,
    Samples,
    check_ids,
    given,
    sentences,
    windows,
)
from statprune.checkpoint.load import require_finite
from statprune.checkpoint.per_layer_model import PerLayerWidths
from statprune.engine.backends import rows_seen
from statprune.engine.stat import Decide
from statprune.errors import DataError, ModelError
from statprune.inputs import Opened, are_batches, context_length, listed, records_of, sequence_length
from statprune.recipe import Recipe, WidthsRule

DEFAULT_WIDTHS: dict[str, WidthsRule] = {"decoder": "uniform", "encoder": "per-layer"}
"""The rule that does less damage on the models measured (docs/decisions/0003-default-allocation.md)."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """A run that nothing speaks against any more.

    `plan` is known where the user gave one, or keeps everything; else it is the rule that makes it from the
    curves. `context` is the tokens that a token attends to, for counting MACs.
    """

    opened: Opened
    anatomy: Anatomy
    samples: Samples
    plan: Plan | Decide
    context: int
    notes: tuple[str, ...]


def prepare(opened: Opened, recipe: Recipe, data: Any) -> Prepared:
    """Check the model, the plan or budget, and the data; draw the samples.

    Raises:
        InputError: whatever cannot be used.
    """
    anatomy = anatomy_of(opened.model)
    _require_known_class(opened)
    _require_weights(opened)
    require_finite(opened.model)
    fitted = _fitted(recipe, anatomy)
    seq_len = sequence_length(opened, recipe.seq_len)
    if recipe.keep is not None and recipe.of == "params":
        _budget(recipe, recipe.keep, seq_len).require_reachable(anatomy.sites)
    samples = _samples(opened, anatomy, recipe, data, seq_len)
    check_ids(samples, opened.model.config.vocab_size)
    context = int(samples.protocol["seq_len"])
    if anatomy.entry.kind == "encoder":
        context = max(1, round(samples.tokens / samples.protocol["samples"]))
    plan = fitted if fitted is not None else _rule(recipe, anatomy, context)
    return Prepared(
        opened, anatomy, samples, plan, context, (*samples.notes, *_short_of_rows(anatomy, samples, recipe))
    )


def _require_known_class(opened: Opened) -> None:
    """A class of the caller's own may compute anything, and could not be saved as what it is."""
    found = type(opened.model)
    if not found.__module__.startswith("transformers.") and not issubclass(found, PerLayerWidths):
        raise ModelError(
            f"{opened.name}: {found.__name__} is a class of {found.__module__}, not of transformers. "
            f"Give the stock model that it is derived from."
        )


def require_one_dtype(opened: Opened) -> None:
    """A folder states one dtype for all weights.

    Raises:
        ModelError: the model mixes floating point types; names the first parameter that differs.
    """
    for name, parameter in opened.model.named_parameters():
        if parameter.is_floating_point() and parameter.dtype != opened.model.dtype:
            raise ModelError(
                f"{opened.name}: {name} is {parameter.dtype}, other weights are {opened.model.dtype}; "
                f"a folder has one dtype. Convert the model, as in model.to({opened.model.dtype})."
            )


def _require_weights(opened: Opened) -> None:
    for name, parameter in opened.model.named_parameters():
        if parameter.is_meta:
            raise ModelError(
                f"{opened.name}: {name} holds no numbers (meta device, or offloaded). "
                f"Load the model in memory first."
            )


def _fitted(recipe: Recipe, anatomy: Anatomy) -> Plan | None:
    if isinstance(recipe.plan, Path):
        return plans.read(recipe.plan, anatomy.sites)
    if recipe.plan is not None:
        return plans.fit(recipe.plan, anatomy.sites)
    return plans.full(anatomy.sites) if recipe.keep == 1 else None


def _budget(recipe: Recipe, keep: float, context: int) -> Budget:
    return Budget(keep, Cost(recipe.of, context), recipe.multiple)


def _rule(recipe: Recipe, anatomy: Anatomy, context: int) -> Decide:
    kind, sites = anatomy.entry.kind, anatomy.sites
    budget = _budget(recipe, recipe.keep or 1.0, context)
    budget.require_reachable(sites)

    def decide(curves: Curves) -> Plan:
        if (recipe.widths or DEFAULT_WIDTHS[kind]) == "uniform":
            return uniform(curves, sites, budget)
        return published(curves, sites, budget, kind)

    return decide


def _samples(opened: Opened, anatomy: Anatomy, recipe: Recipe, data: Any, seq_len: int) -> Samples:
    data = listed(data)
    if are_batches(data):
        samples = given(data)
        longest, positions = samples.protocol["seq_len"], context_length(opened)
        if longest > positions:
            raise DataError(f"the batches hold rows of {longest} tokens; this model reads {positions}.")
        return samples
    draw = windows if anatomy.entry.kind == "decoder" else sentences
    pool = POOL_FACTOR * recipe.samples * seq_len * CHARACTERS_PER_TOKEN
    return draw(
        records_of(data, opened, recipe.text_column, "train", pool),
        opened.tokenizer,
        samples=recipe.samples,
        seq_len=seq_len,
        generator=torch.Generator().manual_seed(recipe.seed),
    )


def _short_of_rows(anatomy: Anatomy, samples: Samples, recipe: Recipe) -> tuple[str, ...]:
    widest = max(anatomy.sites, key=lambda site: site.units * site.columns)
    columns = widest.units * widest.columns
    tokens = samples.tokens
    rows = rows_seen(recipe.backend, samples=samples.protocol["samples"], tokens=tokens)
    if rows >= columns:
        return ()
    what = "calibration tokens" if rows == tokens else f"rows of the {recipe.backend} sketch"
    return (
        f"{rows} {what} for {columns} columns at {widest.name}: units beyond the {rows}th cannot be told "
        f"apart. Give more samples{', or longer ones' if rows == tokens else ', or use the gram backend'}.",
    )
