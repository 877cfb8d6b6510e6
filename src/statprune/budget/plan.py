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
    """How many units every site keeps; `why` says how that was decided."""

    widths: Mapping[str, int]
    why: str = "given"

    def __getitem__(self, site: Site) -> int:
        return self.widths[site.name]

    def is_uniform(self) -> bool:
        """Whether all blocks keep the same number of units in attention, and in feed-forward."""
        kinds: dict[str, set[int]] = {}
        for name, count in self.widths.items():
            kinds.setdefault(name.rpartition(".")[2], set()).add(count)
        return all(len(counts) == 1 for counts in kinds.values())

    def to_json(self) -> dict[str, Any]:
        """The plan file's content."""
        return {"format": _FORMAT, "why": self.why, "widths": dict(self.widths)}


def full(sites: Iterable[Site]) -> Plan:
    """Every unit of every site."""
    return Plan({site.name: site.units for site in sites}, "full width")


def fit(widths: Mapping[str, Any], sites: Iterable[Site], why: str = "given") -> Plan:
    """The plan that keeps `widths[name]` units at the sites named, and every unit elsewhere.

    Raises:
        PlanError: no site is named, a name is not a site of this model, or a count is not an integer from 1
            to the site's units.
    """
    known = {site.name: site for site in sites}
    if not widths:
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
    return Plan({name: widths.get(name, site.units) for name, site in known.items()}, why)


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
    return fit(widths, sites, f"given in {path.name}")


def _example(known: Mapping[str, Site]) -> str:
    names = list(known)
    return f"{names[0]} (1 to {known[names[0]].units}) ... {names[-1]} (1 to {known[names[-1]].units})."
