"""Units kept per site, as a value that can be written, read and checked."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from statprune.anatomy.sites import Site
from statprune.errors import PlanError
from statprune.json_file import json_of

_FORMAT = 1
MOST = 2**24
"""Bytes of a plan file at most."""


@dataclass(frozen=True)
class Plan:
    """How many units every site keeps; `why` says how that was decided.

    `value_dim` is how many columns the values of every head keep, where they have a weight of their own;
    None: all.
    """

    widths: Mapping[str, int]
    why: str = "given"
    value_dim: int | None = None

    def __getitem__(self, site: Site) -> int:
        return self.widths[site.name]

    @property
    def key(self) -> tuple[int | None, ...]:
        """What tells it from other plans of the same model."""
        return (*self.widths.values(), self.value_dim)

    def narrows(self, site: Site) -> bool:
        """Whether anything of `site` goes."""
        return self[site] < site.units or (self.value_dim is not None and site.values_apart)

    def is_uniform(self) -> bool:
        """Whether all blocks keep the same number of units in attention, and in feed-forward."""
        kinds: dict[str, set[int]] = {}
        for name, count in self.widths.items():
            kinds.setdefault(name.rpartition(".")[2], set()).add(count)
        return all(len(counts) == 1 for counts in kinds.values())

    def to_json(self) -> dict[str, Any]:
        """The plan file's content."""
        values = {} if self.value_dim is None else {"value_dim": self.value_dim}
        return {"format": _FORMAT, "why": self.why, "widths": dict(self.widths)} | values

    @staticmethod
    def of_json(content: Mapping[str, Any]) -> "Plan":
        """What `to_json` gave."""
        return Plan(content["widths"], content["why"], content.get("value_dim"))


def full(sites: Iterable[Site]) -> Plan:
    """Every unit of every site."""
    return Plan({site.name: site.units for site in sites}, "full width")


def fit(widths: Mapping[str, Any], sites: Iterable[Site], why: str = "given", value_dim: Any = None) -> Plan:
    """The plan that keeps `widths[name]` units at the sites named, and every unit elsewhere.

    Raises:
        PlanError: no site is named, a name is not a site of this model, a count is not an integer from 1
            to the site's units, or the value dimension none that this model can have.
    """
    known = {site.name: site for site in sites}
    value_dim = fit_value_dim(value_dim, known.values())
    if not widths and value_dim is None:
        raise PlanError(
            "the plan names no site. Give units to keep for at least one, as in " + _example(known)
        )
    for name, count in widths.items():
        if name not in known:
            raise PlanError(
                f"the plan names '{name}', which this model does not have; it has {_example(known)}"
            )
        if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= known[name].units:
            raise PlanError(
                f"{name}: cannot keep {count!r} units; give an integer from 1 to {known[name].units}."
            )
        require_width(known[name], count)
    return Plan({name: widths.get(name, site.units) for name, site in known.items()}, why, value_dim)


def fit_value_dim(asked: Any, sites: Iterable[Site]) -> int | None:
    """The value dimension asked for; None where that is what every head has.

    Raises:
        PlanError: it is no integer from 1 to what heads have, or there are no values that can be narrowed.
    """
    if asked is None:
        return None
    dims = {site.head_dim for site in sites if site.values_apart}
    if not dims:
        raise PlanError(
            f"value_dim is {asked!r}, but no attention of this model keeps values in a weight of their own; "
            f"leave it out."
        )
    if isinstance(asked, bool) or not isinstance(asked, int) or not 1 <= asked <= min(dims):
        raise PlanError(
            f"value_dim is {asked!r}; give an integer from 1 to {min(dims)}, the columns of a head."
        )
    return asked if asked < min(dims) else None


def require_width(site: Site, width: int) -> None:
    """Refuse a width with which the model would not run.

    Raises:
        PlanError: with the widths next to it.
    """
    if not site.allows(width):
        below = width // site.step * site.step
        raise PlanError(
            f"{site.name}: cannot keep {width} units of each expert: torch's grouped product takes multiples "
            f"of {site.step}. Give {f'{below} or ' if below else ''}{min(site.units, below + site.step)}."
        )


def read(path: Path, sites: Iterable[Site]) -> Plan:
    """The plan in a JSON file, {"widths": {site: units}}, fitted to this model.

    Raises:
        PlanError: the file cannot be read, is not of this form, or does not fit.
    """
    try:
        content = json_of(path, most=MOST)
    except FileNotFoundError:
        raise PlanError(f"{path}: no such plan file.") from None
    except (OSError, ValueError) as error:
        raise PlanError(f"{path}: not a readable plan file: {error}.") from error
    widths = content.get("widths") if isinstance(content, dict) else None
    if not isinstance(widths, dict):
        raise PlanError(
            f'{path}: a plan is {{"widths": {{"blocks.0.attention": 4, ...}}}}; "widths" is missing.'
        )
    if content.get("format", _FORMAT) != _FORMAT:
        raise PlanError(f"{path}: plan format {content['format']!r}; this version reads format {_FORMAT}.")
    return fit(widths, sites, f"given in {path.name}", content.get("value_dim"))


def _example(known: Mapping[str, Site]) -> str:
    names = list(known)
    return f"{names[0]} (1 to {known[names[0]].units}) ... {names[-1]} (1 to {known[names[-1]].units})."
