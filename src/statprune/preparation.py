"""Everything that can be refused is refused here, before the first pass over the data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from statprune import measurement as measurements
from statprune.anatomy.lookup import Anatomy, anatomy_of, is_own
from statprune.budget import plan as plans
from statprune.budget.allocate import Budget, published, uniform
from statprune.budget.cost import Cost, Price
from statprune.budget.curves import Curves
from statprune.budget.plan import Plan
from statprune.budget.size import Size, size_of
from statprune.calibration.samples import Samples
from statprune.checkpoint.load import require_finite
from statprune.checkpoint.offload import Lent
from statprune.checkpoint.per_layer_model import PerLayerWidths
from statprune.checkpoint.rehearsal import rehearse
from statprune.checkpoint.stock import stock_units
from statprune.engine.contracts import require_contracts
from statprune.engine.stat import Decide
from statprune.errors import InputError, ModelError, PlanError
from statprune.inputs import (
    Opened,
    is_of_content,
    sequence_length,
)
from statprune.measured_file import require_fitting
from statprune.measurement import Measurement, fingerprint
from statprune.recipe import Recipe, WidthsRule
from statprune.sampling import samples_of, short_of_rows

STAT_WIDTHS: dict[str, WidthsRule] = {
    "decoder": "uniform",
    "encoder": "per-layer",
    "encoder-decoder": "per-layer",
}
"""The rule with which method stat does less damage (docs/decisions/0003-default-allocation.md)."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """A run that nothing speaks against any more.

    `plan` is known where the user gave one, or keeps everything; else None. `context` is the tokens that a
    token attends to, for counting MACs. `stock` is what `stock_units` finds. `fingerprint` is that of the
    weights, `dense` the size of the model. `measurement` is there where the run starts from one.
    """

    opened: Opened
    anatomy: Anatomy
    samples: Samples
    plan: Plan | None
    context: int
    notes: tuple[str, ...]
    stock: Mapping[str, list[int]]
    fingerprint: str
    dense: Size
    measurement: Measurement | None = None


def _refuse_offloaded(opened: Opened, recipe: Recipe, anatomy: Anatomy) -> None:
    """What runs the whole model again and again, or looks at it whole."""
    refused = {
        "search": recipe.search,
        "a budget of latency": recipe.of == "latency",
        "an entry of your own": is_own(anatomy.entry),
        "a model of images or sound": is_of_content(opened),
    }
    for what, asked in refused.items():
        if asked and opened.lender is not None:
            raise InputError(f"{what} needs the model in memory; leave out offload.")


def prepare(opened: Opened, recipe: Recipe, data: Any) -> Prepared:
    """Check the model, the plan or budget, and the data; draw the samples.

    Raises:
        InputError: whatever cannot be used.
    """
    anatomy, weights = _checked_anatomy(opened, recipe)
    fitted = _fitted(recipe, anatomy)
    seq_len = sequence_length(opened, recipe.seq_len)
    stock = stock_units(opened.model, anatomy)
    if recipe.keep is not None:
        # Parameters are counted without data; for all else what can be checked now is what keeps all.
        early = recipe if recipe.of == "params" else replace(recipe, of="params", keep=1.0)
        _require_reachable(early, Cost("params", seq_len), stock, anatomy)
    samples = samples_of(opened, anatomy, recipe, data, seq_len)
    _require_described(opened, anatomy, samples)
    _require_unhooked(opened, anatomy, fitted, recipe)
    context = int(samples.protocol["seq_len"])
    if anatomy.entry.kind != "decoder":
        context = max(1, round(samples.tokens / samples.protocol["samples"]))
    if fitted is None and recipe.keep is not None and recipe.of != "latency":
        _require_reachable(recipe, Cost(recipe.of, context), stock, anatomy)
    notes = (*samples.notes, *short_of_rows(anatomy, samples, recipe))
    return Prepared(opened, anatomy, samples, fitted, context, notes, stock, weights, size_of(opened.model))


def prepare_measured(opened: Opened, recipe: Recipe, folder: Path) -> Prepared:
    """The same for a run that starts from a measurement, with its samples.

    Raises:
        InputError: whatever cannot be used, such as a measurement of another model.
    """
    anatomy, weights = _checked_anatomy(opened, recipe)
    measurement = measurements.read(folder, anatomy, weights)
    fitted = _fitted(recipe, anatomy)
    stock = measurement.about.get("stock_units") or {}
    if fitted is None:
        _require_reachable(recipe, measurement.price(recipe.of), stock, anatomy)
    samples = measurement.samples
    require_fitting(samples, opened.model, folder / measurements.SAMPLES)
    _require_described(opened, anatomy, samples)
    _require_unhooked(opened, anatomy, fitted, recipe)
    notes = tuple(samples.notes)
    size, context = size_of(opened.model), measurement.context
    return Prepared(opened, anatomy, samples, fitted, context, notes, stock, weights, size, measurement)


def _checked_anatomy(opened: Opened, recipe: Recipe) -> tuple[Anatomy, str]:
    """The model's anatomy, and the fingerprint of its weights, which are read once."""
    anatomy = anatomy_of(opened.model)
    if opened.lender is not None:
        anatomy = replace(anatomy, shelf=Lent(opened.lender))
    _require_known_class(opened)
    _require_whole_values(opened, anatomy)
    _require_weights(opened, anatomy)
    _refuse_offloaded(opened, recipe, anatomy)
    require_finite(opened.model)

    def look(index: int, block: nn.Module) -> None:
        if anatomy.shelf.lends:
            require_finite(block, f"blocks.{index}.")

    return anatomy, fingerprint(anatomy, look)


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


def _require_whole_values(opened: Opened, anatomy: Anatomy) -> None:
    """Values of heads are narrowed once: what reads them sees zeros where columns are gone."""
    for site in anatomy.sites:
        if site.kind == "attention" and site.value_dim < site.head_dim:
            raise ModelError(
                f"{opened.name}: {site.name} keeps {site.value_dim} of {site.head_dim} columns of its heads' "
                f"values: it has been compressed so. Compress the model that it was made of."
            )


def value_dim_of(recipe: Recipe, prepared: Prepared) -> int | None:
    """What the recipe says; all columns, where hooks of accelerate call the layers that they stand on."""
    dims = [site.head_dim for site in prepared.anatomy.sites if site.values_apart]
    whole = min(dims) if dims and _hooked(prepared.opened) else None
    return whole if recipe.value_dim is None else recipe.value_dim


def _hooked(opened: Opened) -> bool:
    return opened.lender is None and any("_hf_hook" in vars(module) for module in opened.model.modules())


def _require_unhooked(opened: Opened, anatomy: Anatomy, plan: Plan | None, recipe: Recipe) -> None:
    dim = recipe.value_dim if plan is None else plan.value_dim
    if plans.fit_value_dim(dim, anatomy.sites) is not None and _hooked(opened):
        raise ModelError(
            f"{opened.name} has hooks of accelerate on its layers, which values cannot be narrowed under. "
            f"Remove them (accelerate.hooks.remove_hook_from_module), or leave out value_dim."
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


def _require_weights(opened: Opened, anatomy: Anatomy) -> None:
    lent = {id(own) for block in anatomy.blocks for own in block.parameters()} if anatomy.shelf.lends else ()
    for name, parameter in opened.model.named_parameters():
        if parameter.is_meta and id(parameter) not in lent:
            raise ModelError(
                f"{opened.name}: {name} holds no numbers (meta device, or offloaded). "
                f"Load the model in memory first, or give its folder and offload."
            )


def _fitted(recipe: Recipe, anatomy: Anatomy) -> Plan | None:
    dim = plans.fit_value_dim(recipe.value_dim, anatomy.sites)
    if dim is not None and (recipe.of == "latency" or recipe.protect):
        what = (
            "a budget of latency" if recipe.of == "latency" else "a protected block, which keeps all it has,"
        )
        raise PlanError(f"value_dim is {dim}, but {what} knows whole values alone. Leave out one of them.")
    if isinstance(recipe.plan, Path):
        found = plans.read(recipe.plan, anatomy.sites)
        found = found if recipe.value_dim is None else replace(found, value_dim=dim)
        if recipe.method == "stat" and found.value_dim is not None:
            raise PlanError(f"{recipe.plan} has value_dim {found.value_dim}; method stat keeps all values.")
        return found
    if recipe.plan is not None:
        return plans.fit(recipe.plan, anatomy.sites, value_dim=recipe.value_dim)
    whole = plans.full(anatomy.sites) if recipe.keep == 1 and not recipe.restrictions else None
    return whole if whole is None else replace(whole, value_dim=dim)


def _require_reachable(
    recipe: Recipe, price: Price, stock: Mapping[str, Sequence[int]], anatomy: Anatomy
) -> None:
    budget = budget_of(recipe, price, stock)
    budget.restrictions.check(anatomy.sites)
    dim = plans.fit_value_dim(recipe.value_dim, anatomy.sites)
    budget.require_reachable(anatomy.sites, same=recipe.widths in ("uniform", "stock"), value_dim=dim)


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
