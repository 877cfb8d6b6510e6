"""Everything that can be refused is refused here, before the first pass over the data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from statprune import measurement as measurements
from statprune.anatomy.lookup import Anatomy, anatomy_of, is_own
from statprune.budget import plan as plans
from statprune.budget.allocate import Budget, published, uniform
from statprune.budget.cost import Cost, Price
from statprune.budget.curves import Curves
from statprune.budget.plan import Plan
from statprune.calibration.given import check_ids, given, longest_ids, taken_by
from statprune.calibration.images import images
from statprune.calibration.pairs import pairs
from statprune.calibration.samples import CHARACTERS_PER_TOKEN, POOL_FACTOR, Samples, sentences, windows
from statprune.calibration.sound import sound
from statprune.checkpoint.load import require_finite
from statprune.checkpoint.per_layer_model import PerLayerWidths
from statprune.checkpoint.rehearsal import rehearse
from statprune.checkpoint.stock import stock_units
from statprune.engine.backends import rows_seen
from statprune.engine.contracts import require_contracts
from statprune.engine.divergence import HOLD_OUT
from statprune.engine.stat import Decide
from statprune.engine.trial import tokens_by_stack, tried
from statprune.errors import DataError, ModelError
from statprune.inputs import (
    Opened,
    are_batches,
    context_length,
    is_of_content,
    listed,
    records_of,
    sequence_length,
)
from statprune.measurement import Measurement
from statprune.recipe import Recipe, WidthsRule

STAT_WIDTHS: dict[str, WidthsRule] = {
    "decoder": "uniform",
    "encoder": "per-layer",
    "encoder-decoder": "per-layer",
}
"""The rule with which method stat does less damage (docs/decisions/0003-default-allocation.md)."""

FEWEST_SAMPLES = HOLD_OUT
"""Method refit holds every fourth sample out."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """A run that nothing speaks against any more.

    `plan` is known where the user gave one, or keeps everything; else None. `context` is the tokens that a
    token attends to, for counting MACs. `stock` is what `stock_units` finds. `measurement` is there where the
    run starts from one.
    """

    opened: Opened
    anatomy: Anatomy
    samples: Samples
    plan: Plan | None
    context: int
    notes: tuple[str, ...]
    stock: Mapping[str, list[int]]
    measurement: Measurement | None = None


def prepare(opened: Opened, recipe: Recipe, data: Any) -> Prepared:
    """Check the model, the plan or budget, and the data; draw the samples.

    Raises:
        InputError: whatever cannot be used.
    """
    anatomy = _checked_anatomy(opened)
    fitted = _fitted(recipe, anatomy)
    seq_len = sequence_length(opened, recipe.seq_len)
    stock = stock_units(opened.model, anatomy)
    if recipe.keep is not None:
        # Parameters are counted without data; for all else what can be checked now is what keeps all.
        early = recipe if recipe.of == "params" else replace(recipe, of="params", keep=1.0)
        _require_reachable(early, Cost("params", seq_len), stock, anatomy)
    samples = _samples(opened, anatomy, recipe, data, seq_len)
    _require_described(opened, anatomy, samples)
    context = int(samples.protocol["seq_len"])
    if anatomy.entry.kind != "decoder":
        context = max(1, round(samples.tokens / samples.protocol["samples"]))
    if fitted is None and recipe.keep is not None and recipe.of != "latency":
        _require_reachable(recipe, Cost(recipe.of, context), stock, anatomy)
    notes = (*samples.notes, *_short_of_rows(anatomy, samples, recipe))
    return Prepared(opened, anatomy, samples, fitted, context, notes, stock)


def prepare_measured(opened: Opened, recipe: Recipe, folder: Path) -> Prepared:
    """The same for a run that starts from a measurement, with its samples.

    Raises:
        InputError: whatever cannot be used, such as a measurement of another model.
    """
    anatomy = _checked_anatomy(opened)
    measurement = measurements.read(folder, anatomy)
    fitted = _fitted(recipe, anatomy)
    stock = measurement.about.get("stock_units") or {}
    if fitted is None:
        _require_reachable(recipe, measurement.price(recipe.of), stock, anatomy)
    samples = measurement.samples
    _require_described(opened, anatomy, samples)
    notes = tuple(samples.notes)
    return Prepared(opened, anatomy, samples, fitted, measurement.context, notes, stock, measurement)


def _checked_anatomy(opened: Opened) -> Anatomy:
    anatomy = anatomy_of(opened.model)
    _require_known_class(opened)
    _require_weights(opened)
    require_finite(opened.model)
    return anatomy


def _require_described(opened: Opened, anatomy: Anatomy, samples: Samples) -> None:
    """An entry of the user's own is tried out on two samples; those of this package are tested."""
    if is_own(anatomy.entry):
        rehearse(opened.model)
        require_contracts(
            opened.model, anatomy, {name: value[:2] for name, value in samples.batches[0].items()}
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
    return plans.full(anatomy.sites) if recipe.keep == 1 and not recipe.restrictions else None


def _require_reachable(
    recipe: Recipe, price: Price, stock: Mapping[str, Sequence[int]], anatomy: Anatomy
) -> None:
    budget = budget_of(recipe, price, stock)
    budget.restrictions.check(anatomy.sites)
    budget.require_reachable(anatomy.sites, same=recipe.widths in ("uniform", "stock"))


def budget_of(recipe: Recipe, price: Price, stock: Mapping[str, Sequence[int]] | None = None) -> Budget:
    """The recipe's budget, counted or measured as `price` does.

    Uniform head counts are those that a stock config can say, `stock`, where the family's config can say
    fewer heads at all; stock widths in any case.
    """
    limits = recipe.restrictions
    some = any(len(units) > 1 for units in (stock or {}).values())
    if stock and (recipe.widths == "stock" or (recipe.widths == "uniform" and some)):
        limits = replace(limits, only=stock)
    return Budget(recipe.keep or 1.0, price, recipe.multiple, limits)


def stat_rule(recipe: Recipe, prepared: Prepared) -> Decide:
    """How method stat makes a plan from its curves."""
    kind, sites = prepared.anatomy.entry.kind, prepared.anatomy.sites
    cost = Cost("macs" if recipe.of == "macs" else "params", prepared.context)
    widths = recipe.widths or STAT_WIDTHS.get(kind, "per-layer")
    budget = budget_of(replace(recipe, widths=widths), cost, prepared.stock)

    def decide(curves: Curves) -> Plan:
        if widths != "per-layer":
            return uniform(curves, sites, budget)
        return published(curves, sites, budget, kind)

    return decide


def _samples(opened: Opened, anatomy: Anatomy, recipe: Recipe, data: Any, seq_len: int) -> Samples:
    data = listed(data)
    samples = _drawn(opened, anatomy, recipe, data, seq_len)
    count = int(samples.protocol["samples"])
    if recipe.method == "refit" and count < FEWEST_SAMPLES:
        raise DataError(
            f"{count} calibration samples: method refit holds every fourth one out. Give at least "
            f"{FEWEST_SAMPLES}, better hundreds, or use method stat."
        )
    check_ids(samples, getattr(opened.model.config, "vocab_size", None))
    own = are_batches(data) or anatomy.entry.kind == "encoder-decoder" or is_of_content(opened)
    return tried(opened.model, anatomy, samples) if own else samples


def _drawn(opened: Opened, anatomy: Anatomy, recipe: Recipe, data: Any, seq_len: int) -> Samples:
    if are_batches(data):
        samples = given(data, taken_by(opened.model))
        longest, positions = longest_ids(samples), context_length(opened)
        if positions is not None and longest > positions:
            raise DataError(f"the batches hold rows of {longest} tokens; this model reads {positions}.")
        return samples
    generator = torch.Generator().manual_seed(recipe.seed)
    if is_of_content(opened):
        return _of_content(data, opened, recipe, seq_len, generator)
    pool = POOL_FACTOR * recipe.samples * seq_len * CHARACTERS_PER_TOKEN
    records = records_of(data, opened, recipe.text_column, "train", pool)
    sizes: dict[str, Any] = {"samples": recipe.samples, "seq_len": seq_len, "generator": generator}
    if anatomy.entry.kind == "encoder-decoder":
        model = opened.model
        writes = model.can_generate() or model.base_model is model
        return pairs(records, opened.tokenizer, taken_by(model), writes=writes, **sizes)
    draw = windows if anatomy.entry.kind == "decoder" and not _reads_records(opened) else sentences
    return draw(records, opened.tokenizer, **sizes)


def _of_content(
    data: Any, opened: Opened, recipe: Recipe, seq_len: int, generator: torch.Generator
) -> Samples:
    takes = taken_by(opened.model)
    if takes.main == "pixel_values" and not takes.decodes:
        if isinstance(recipe.text_column, tuple) or recipe.seq_len is not None:
            raise DataError(
                f"{opened.name} reads images: they have one column, and a length of their own; leave out the "
                f"second column and seq_len."
            )
        column, count = recipe.text_column, recipe.samples
        return images(data, opened.processor, column=column, samples=count, generator=generator)
    if takes.main != "input_features":
        raise DataError(f"{opened.name} reads {takes.main}; give batches with them.")
    return sound(
        data,
        opened.processor,
        opened.tokenizer,
        takes,
        samples=recipe.samples,
        seq_len=seq_len,
        generator=generator,
    )


def _reads_records(opened: Opened) -> bool:
    """Whether the model's task is about one text at a time, not about running text."""
    return any(task in type(opened.model).__name__ for task in ("Classification", "QuestionAnswering"))


def _short_of_rows(anatomy: Anatomy, samples: Samples, recipe: Recipe) -> tuple[str, ...]:
    counts = tokens_by_stack(samples.batches)
    tokens_of = {
        site.name: counts[min(number, len(counts) - 1)]
        for number, run in enumerate(anatomy.runs)
        for site in anatomy.sites
        if run.start <= site.block < run.end
    }
    widest = max(anatomy.sites, key=lambda site: site.units * site.columns / tokens_of[site.name])
    columns, tokens = widest.units * widest.columns, tokens_of[widest.name]
    rows = rows_seen(recipe.backend, samples=samples.protocol["samples"], tokens=tokens)
    if rows >= columns:
        return ()
    what = "calibration tokens" if rows == tokens else f"rows of the {recipe.backend} sketch"
    return (
        f"{rows} {what} for {columns} columns at {widest.name}: units beyond the {rows}th cannot be told "
        f"apart. Give more samples{', or longer ones' if rows == tokens else ', or use the gram backend'}.",
    )
