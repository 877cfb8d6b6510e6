"""What a plan may not touch: floors, protected blocks, pinned widths."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from statprune.anatomy.sites import Site, blocks_of
from statprune.budget.plan import require_width
from statprune.errors import PlanError

KINDS = ("attention", "feed_forward")


@dataclass(frozen=True)
class Restrictions:
    """Limits on the widths that an allocation may choose.

    Attributes:
        floors: least units to keep, by site or by kind of site ("attention", "feed_forward").
        protect: blocks that keep every unit; negative numbers count from the last block.
        pins: the width of a site, whatever the budget.
        only: the widths that a site may have, by site; for what a config can say.
    """

    floors: Mapping[str, int] = field(default_factory=dict)
    protect: Sequence[int] = ()
    pins: Mapping[str, int] = field(default_factory=dict)
    only: Mapping[str, Sequence[int]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.floors or self.protect or self.pins or self.only)

    def check(self, sites: Sequence[Site]) -> None:
        """Refuse what this model does not have.

        Raises:
            PlanError: a site, block or width does not exist, or a pin contradicts a floor or a protection.
        """
        known = {site.name: site for site in sites}
        for name in (name for name, units in self.only.items() if not units):
            raise PlanError(
                f"{name} has lost heads before, and {known[name].units} are what no stock config of this "
                f"family can say. Prune the dense model, or take uniform or per-layer widths."
            )
        blocks = blocks_of(sites)
        for block in self.protect:
            if isinstance(block, bool) or not isinstance(block, int) or not -blocks <= block < blocks:
                raise PlanError(f"protected block {block!r}: this model has blocks 0 to {blocks - 1}.")
        for name, units in self.floors.items():
            if name in KINDS:
                _check_units(name, units, max(site.units for site in sites if site.kind == name))
            else:
                _check_units(name, units, _known(name, known, " or a kind, attention or feed_forward").units)
        for name, width in self.pins.items():
            self._check_pin(_known(name, known, ""), width, blocks)

    def _check_pin(self, site: Site, width: int, blocks: int) -> None:
        _check_units(site.name, width, site.units)
        require_width(site, width)
        if width < self.floor(site):
            raise PlanError(f"{site.name} is pinned to {width} units, below its floor {self.floor(site)}.")
        if self._protects(site, blocks) and width < site.units:
            raise PlanError(f"{site.name} is pinned to {width} units, but its block is protected.")
        said = self.only.get(site.name, (width,))
        if width not in said:
            nearest = sorted(sorted(said, key=lambda units: abs(units - width))[:2])
            raise PlanError(
                f"{site.name} is pinned to {width} units, and no stock config can say that. The nearest that "
                f"one can: {' or '.join(map(str, nearest))}. Or take per-layer widths."
            )

    def floor(self, site: Site) -> int:
        """The least units that `site` keeps."""
        return min(site.units, max(self.floors.get(site.kind, 1), self.floors.get(site.name, 1)))

    def allows(self, site: Site, width: int, blocks: int) -> bool:
        """Whether `site`, of a model of so many blocks, may have this width."""
        if site.name in self.pins:
            return width == self.pins[site.name]
        if self._protects(site, blocks):
            return width == site.units
        return width >= self.floor(site) and width in self.only.get(site.name, (width,))

    def _protects(self, site: Site, blocks: int) -> bool:
        return site.block in self.protect or site.block - blocks in self.protect

    def to_json(self) -> dict[str, Any]:
        """JSON-able content."""
        return {"floors": dict(self.floors), "protect": list(self.protect), "pins": dict(self.pins)}


def units_by_name(given: Iterable[str]) -> dict[str, int]:
    """Floors or pins that are written as NAME=UNITS.

    Raises:
        PlanError: one is not of that form, or a name comes twice.
    """
    found: dict[str, int] = {}
    for each in given:
        name, equals, units = (part.strip() for part in each.partition("="))
        if not equals or not units.isdecimal() or name in found:
            raise PlanError(f"{each!r} is not NAME=UNITS, or names it again")
        found[name] = int(units)
    return found


def _known(name: str, known: Mapping[str, Site], otherwise: str) -> Site:
    if name not in known:
        names = list(known)
        raise PlanError(f"'{name}' is no site of this model; give {names[0]} ... {names[-1]}{otherwise}.")
    return known[name]


def _check_units(name: str, units: int, most: int) -> None:
    if isinstance(units, bool) or not isinstance(units, int) or not 1 <= units <= most:
        raise PlanError(f"{name}: cannot keep {units!r} units; give a whole number from 1 to {most}.")
