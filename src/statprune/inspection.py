"""`inspect`: what of a model can be pruned, how much of it that is, and what cannot and why."""

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from statprune.anatomy.lookup import Anatomy, anatomy_of, context_of
from statprune.anatomy.sites import Site
from statprune.budget.cost import Cost
from statprune.checkpoint.skeleton import skeleton
from statprune.inputs import LONGEST_DEFAULT


@dataclass(frozen=True)
class SiteGroup:
    """Sites of one part and width: `blocks` of them; cost of one unit in parameters, and MACs per token."""

    part: str
    unit: str
    blocks: int
    units: int
    parameters_per_unit: int
    macs_per_unit: int


@dataclass(frozen=True)
class Inspection:
    """A model's prunable parts and their sizes.

    `parameters` counts every weight once; `prunable_parameters` and `prunable_macs` (per token, at `context`
    tokens) count the projections of attention and feed-forward; `kept_whole` tells what stays, and why.
    """

    model: str
    model_type: str
    kind: str
    blocks: int
    context: int
    parameters: int
    prunable_parameters: int
    prunable_macs: int
    sites: tuple[SiteGroup, ...]
    kept_whole: dict[str, dict[str, Any]]
    uniform_heads: str

    def to_json(self) -> dict[str, Any]:
        """JSON-able content."""
        return asdict(self)


def inspect(model: PreTrainedModel | str | Path) -> Inspection:
    """What can be pruned; of a folder or a hub name only the config is read, no weights.

    Raises:
        ModelError: the model cannot be opened or pruned.
        UnknownArchitectureError: no entry describes it; the message holds a draft.
    """
    name = str(model) if isinstance(model, str | Path) else type(model).__name__
    opened = skeleton(model) if isinstance(model, str | Path) else model
    anatomy = anatomy_of(opened)
    context = min(LONGEST_DEFAULT, context_of(anatomy.entry, opened.config) or LONGEST_DEFAULT)
    total = sum(parameter.numel() for parameter in opened.parameters())
    prunable = Cost("params", context).dense(anatomy.sites)
    left = _left_whole(anatomy)
    inside = sum(parameter.numel() for block in anatomy.blocks for parameter in block.parameters())
    return Inspection(
        model=name,
        model_type=opened.config.model_type,
        kind=anatomy.entry.kind,
        blocks=len(anatomy.blocks),
        context=context,
        parameters=total,
        prunable_parameters=prunable,
        prunable_macs=Cost("macs", context).dense(anatomy.sites),
        sites=_groups(anatomy, context),
        kept_whole={
            **left,
            "norms in blocks": {
                "parameters": inside - prunable - sum(each["parameters"] for each in left.values()),
                "why": "they act on the hidden size, which stays",
            },
            "embeddings, final norm and head": {
                "parameters": total - inside,
                "why": "they carry the hidden size and the vocabulary, which stay",
            },
        },
        uniform_heads=_uniform_heads(anatomy, opened.config.model_type),
    )


def _left_whole(anatomy: Anatomy) -> dict[str, dict[str, Any]]:
    """The matrices of parts that no site narrows, under the names of those parts, with the reasons."""
    reasons = anatomy.kept_whole()
    if not reasons:
        return {}
    narrowed = {(site.block, name) for site in anatomy.sites for name in site.weights}
    count = sum(
        parameter.numel()
        for number, block in enumerate(anatomy.blocks)
        for name, parameter in block.named_parameters()
        if parameter.ndim > 1 and (number, name) not in narrowed
    )
    return {", ".join(reasons): {"parameters": count, "why": "; ".join(dict.fromkeys(reasons.values()))}}


def _groups(anatomy: Anatomy, context: int) -> tuple[SiteGroup, ...]:
    macs = Cost("macs", context)
    counted = Counter(
        SiteGroup(
            part=site.part,
            unit=_unit(site),
            blocks=0,
            units=site.units,
            parameters_per_unit=site.parameters_per_unit,
            macs_per_unit=macs.per_unit(site),
        )
        for site in anatomy.sites
    )
    return tuple(SiteGroup(**{**asdict(group), "blocks": blocks}) for group, blocks in counted.items())


def _unit(site: Site) -> str:
    if site.experts:
        return f"neuron of each of {site.experts} experts"
    if site.kind == "feed_forward":
        return "neuron"
    unit = "head" if site.group == 1 else f"key-value group of {site.group} heads"
    if site.value_dim == site.head_dim:
        return unit
    return f"{unit}, values of {site.value_dim} of {site.head_dim} columns"


def _uniform_heads(anatomy: Anatomy, model_type: str) -> str:
    """Whether fewer heads, the same in every block, can be said in this family's own config."""
    entry = anatomy.entry
    if any(run.stack.widths.head_dim is None for run in anatomy.runs):
        return "need this package or trust_remote_code to load: the config has no head size of its own"
    if model_type in entry.reencode:
        other = entry.reencode[model_type]
        return f"load in stock transformers (as {other} where they do not divide the hidden size)"
    return "load in stock transformers"
