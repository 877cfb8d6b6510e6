"""One measurement, every budget: what `plan` leaves, and what any later `compress` can start from.

A folder holds `measurement.json` (damage curves, latencies, and what they were measured of) and
`samples.safetensors` (the calibration samples, token ids or other inputs, so that the refit sees the same
ones).
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from statprune.anatomy.lookup import Anatomy
from statprune.anatomy.producers import module_at
from statprune.anatomy.sites import Site
from statprune.budget.allocate import Budget
from statprune.budget.cost import Cost, Of, Price
from statprune.budget.curves import drawn
from statprune.budget.damage import DamageCurve, DamageCurves
from statprune.budget.knapsack import knapsack, predicted
from statprune.budget.latency import Latency
from statprune.budget.plan import Plan, fit_value_dim
from statprune.budget.uniform import uniform_knapsack
from statprune.budget.value_dim import best_value_dim, dims_of, of_values, require_measured
from statprune.calibration.samples import Samples
from statprune.checkpoint.aside import aside, require_name
from statprune.checkpoint.finished import note_finished
from statprune.errors import BudgetError, OutputError, PlanError
from statprune.json_file import json_of
from statprune.measured_file import curves_of, latency_of, require_parts
from statprune.surgery.linear import weight_of

FORMAT = 1
FILE, SAMPLES = "measurement.json", "samples.safetensors"


@dataclass(frozen=True, eq=False)
class Measurement:
    """What was measured of a model, once.

    Attributes:
        curves: damage of every site by width.
        values: damage by the columns that the values of all its heads keep, of every site that can say.
        sites: the model's sites, with what a unit of each costs.
        context: tokens that a token attends to, for counting MACs.
        latency: seconds by width, where they were measured.
        samples: the calibration samples.
        model: the name of the model on the hub, or its folder.
        fingerprint: of the weights that the sites read and write.
        about: versions, dtype and the like.
        before: whether a run before this one had finished it, and this one only removed what that had left.
    """

    curves: Mapping[str, DamageCurve]
    sites: Sequence[Site]
    context: int
    latency: Latency | None
    samples: Samples
    model: str
    fingerprint: str
    about: Mapping[str, Any]
    before: bool = False
    values: Mapping[str, DamageCurve] = field(default_factory=dict)

    def price(self, of: Of) -> Price:
        """What a budget of this kind counts.

        Raises:
            BudgetError: latency was not measured.
        """
        if of != "latency":
            return Cost(of, self.context)
        if self.latency is None:
            raise BudgetError("latency was not measured here; run `statprune plan` with --latency.")
        return self.latency

    def allocate(
        self,
        budget: Budget,
        widths: Literal["per-layer", "uniform", "stock"],
        curves: DamageCurves | None = None,
        value_dim: int | None = None,
    ) -> Plan:
        """The plan of least predicted damage; by other curves than those measured where they are given.

        Where widths differ per layer and nothing is said of it, `value_dim` is the one with which least is
        lost.

        Raises:
            BudgetError: the budget cannot be reached.
            PlanError: its restrictions, or `value_dim`, name what the model does not have.
        """
        budget.restrictions.check(self.sites)
        dim = fit_value_dim(value_dim, self.sites)
        if dim is not None:
            require_measured(self.values, self.sites, dim)
        budget.require_reachable(self.sites, same=widths != "per-layer", value_dim=dim)
        rule = knapsack if widths == "per-layer" else uniform_knapsack
        curves = self.curves if curves is None else curves
        free = widths == "per-layer" and value_dim is None and not budget.restrictions.protect
        dims = dims_of(self.values, self.sites) if free else [dim]
        return best_value_dim(rule, curves, self.values, self.sites, budget, dims)

    def predicted(self, plan: Plan) -> float:
        """The divergence of the outputs that the plan is expected to cause, before any compensation."""
        return predicted(self.curves, plan) + of_values(self.values, plan.value_dim)

    def drawn(self, plan: Plan) -> dict[str, Any]:
        """The curves with the widths of `plan`, as a run's record has them."""
        return {
            name: drawn(curve.error.tolist(), plan.widths[name], curve.damage().tolist())
            for name, curve in self.curves.items()
        }


def fingerprint(anatomy: Anatomy, look: Callable[[int, nn.Module], None] | None = None) -> str:
    """A digest of the consumers' widths, dtypes and first weights: another model has another one.

    `look` is called with each block's number and the block while its weights are at hand: one walk for all.
    """
    digest = sha256()
    for index, block in anatomy.visited():
        if look is not None:
            look(index, block)
        for site in anatomy.sites_of_block(index):
            weight = weight_of(module_at(block, site.consumer))
            digest.update(repr((site.name, site.units, tuple(weight.shape), str(weight.dtype))).encode())
            digest.update(weight[:, :64].cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def require_free(folder: Path) -> None:
    """Refuse a folder that is there already, or cannot be made.

    Raises:
        OutputError: it exists, or the nearest of its parents that exists is no folder to write to.
    """
    require_name(folder)
    if os.path.lexists(folder):
        raise OutputError(f"{folder} exists already; nothing is overwritten. Give another folder.")
    above = next(parent for parent in folder.absolute().parents if os.path.lexists(parent))
    if not above.is_dir():
        raise OutputError(f"{folder} cannot be made: {above} is no folder. Give another folder.")
    if not os.access(above, os.W_OK | os.X_OK):
        raise OutputError(f"{folder} cannot be made: {above} cannot be written to. Give another folder.")


def write(measurement: Measurement, folder: Path, within: Path | None = None) -> None:
    """Save it into a folder that does not exist yet; complete, or not there.

    `within` is the run's state, where it is written first, and where it is noted that it is whole.

    Raises:
        OutputError: the folder exists or cannot be written.
    """
    require_free(folder)
    content = {
        "format": FORMAT,
        "model": measurement.model,
        "fingerprint": measurement.fingerprint,
        "context": measurement.context,
        "about": dict(measurement.about),
        "data": measurement.samples.protocol,
        "curves": _written(measurement.curves),
        "values": _written(measurement.values),
        "latency": None if measurement.latency is None else measurement.latency.to_json(),
    }
    tensors = {
        f"{number:05d}.{name}": (value if value.is_floating_point() else value.to(torch.int32)).contiguous()
        for number, batch in enumerate(measurement.samples.batches)
        for name, value in batch.items()
    }
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder.parent} cannot be made: {error}.") from error
    with aside(folder, within) as partial:
        partial.mkdir()
        save_file(tensors, partial / SAMPLES)
        content["samples"] = _digest(partial / SAMPLES)
        (partial / FILE).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        if within is not None:
            note_finished(within, partial, {})


def _written(curves: DamageCurves) -> dict[str, Any]:
    return {
        name: {"error": curve.error.tolist(), "measured": [list(pair) for pair in curve.measured]}
        for name, curve in curves.items()
    }


def read_json(folder: Path) -> dict[str, Any]:
    """The content of a measurement's JSON file.

    Raises:
        PlanError: there is none, or it is not one of this version.
    """
    try:
        content = json_of(folder / FILE)
    except FileNotFoundError:
        raise PlanError(
            f"{folder} holds no {FILE}; give a folder that `statprune plan --out` made."
        ) from None
    except (OSError, ValueError) as error:
        raise PlanError(f"{folder / FILE} cannot be read: {error}. Measure again.") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else None
        raise PlanError(
            f"{folder / FILE} is of format {found!r}; this version reads format {FORMAT}. Measure again."
        )
    return content


def read(folder: Path, anatomy: Anatomy, weights: str | None = None) -> Measurement:
    """The measurement in `folder`, which must be of this model.

    `weights` is the model's fingerprint; None, where just its config is open, asks for sites of the same
    names and widths only.

    Raises:
        PlanError: it cannot be read, or the model is another one.
    """
    content = read_json(folder)
    require_parts(content, folder / FILE)
    curves = curves_of(content["curves"], folder / FILE)
    widths = {name: len(curve.error) - 1 for name, curve in curves.items()}
    fits = widths == {site.name: site.units for site in anatomy.sites}
    if not fits or weights not in (None, content["fingerprint"]):
        raise PlanError(
            f"{folder} was measured of {content['model']}, whose weights are others than these. "
            f"Give that model, or measure this one."
        )
    return Measurement(
        curves=curves,
        sites=anatomy.sites,
        values=curves_of(content.get("values", {}), folder / FILE),
        context=content["context"],
        latency=latency_of(content["latency"], widths, folder / FILE),
        samples=_samples(folder, content["data"], content.get("samples")),
        model=content["model"],
        fingerprint=content["fingerprint"],
        about=content["about"],
    )


def _samples(folder: Path, protocol: dict[str, Any], digest: str | None) -> Samples:
    """The samples; with `digest`, which files of earlier versions lack, those that were written."""
    try:
        if digest not in (None, _digest(folder / SAMPLES)):
            raise PlanError(f"{folder / SAMPLES} is not what was written. Measure again.")
        tensors = load_file(folder / SAMPLES)
    except (OSError, SafetensorError) as error:
        raise PlanError(f"{folder / SAMPLES} cannot be read: {error}. Measure again.") from error
    batches: dict[str, dict[str, torch.Tensor]] = {}
    for key in sorted(tensors):
        number, _, name = key.partition(".")
        batches.setdefault(number, {})[name] = (
            value if (value := tensors[key]).is_floating_point() else value.long()
        )
    return Samples(list(batches.values()), protocol, int(protocol["tokens"]))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
