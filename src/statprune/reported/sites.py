"""JSON -> what was kept at every site, and what every width would have done."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from statprune.budget.curves import drawn
from statprune.budget.damage import DamageCurve
from statprune.reported.reading import Left
from statprune.reported.wording import at, number

PARTS = {
    "attention": ("attention", "heads (groups)"),
    "cross_attention": ("cross-attention", "heads (groups)"),
    "feed_forward": ("feed-forward", "neurons"),
    "experts": ("experts", "neurons of each expert"),
}


@dataclass(frozen=True)
class Curve:
    """Relative error, and predicted damage if it is known, by units kept; ascending."""

    units: Sequence[int]
    error: Sequence[float]
    damage: Sequence[float] | None


@dataclass(frozen=True)
class Cut:
    """One site: its place, its units before and after, which of them are kept, and what that does.

    `kept` is None where the record does not say; `width` where nothing is chosen.
    """

    site: str
    units: int
    width: int | None
    kept: Sequence[int] | None
    error: float | None
    curve: Curve | None

    @property
    def block(self) -> str:
        """The block's name, such as blocks.3."""
        return self.site.rpartition(".")[0] or self.site

    @property
    def part(self) -> str:
        """The part of the block, such as attention."""
        return self.site.rpartition(".")[2]

    @property
    def share(self) -> float | None:
        """Units kept of all."""
        return None if self.width is None else self.width / max(self.units, 1)

    @property
    def chosen(self) -> tuple[float | None, float | None]:
        """Error and damage that the curve has at the width chosen."""
        if self.curve is None or self.width is None or not len(self.curve.units):
            return None, None
        place = int(np.abs(np.asarray(self.curve.units) - self.width).argmin())
        if self.curve.units[place] != self.width:
            return None, None
        return self.curve.error[place], None if self.curve.damage is None else self.curve.damage[place]


def cuts(left: Left) -> list[Cut]:
    """Every site, in the record's order."""
    if left.measured:
        return _measured(left.record)
    traced = at(left.record, "trace", "sites")
    lines = traced if isinstance(traced, Sequence) else ()
    done = {each["site"]: each for each in lines if isinstance(at(each, "site"), str)}
    widths, curves = left.record["plan"]["widths"], left.record.get("curves")
    return [
        Cut(
            site,
            units,
            min(widths.get(site, units), units),
            _kept(at(done.get(site), "kept"), units),
            number(at(done.get(site), "relative_error")),
            _curve(at(curves, site)),
        )
        for site, units in left.record["units"].items()
    ]


def blocks(found: Sequence[Cut]) -> dict[str, list[Cut]]:
    """Sites by block."""
    by_block: dict[str, list[Cut]] = {}
    for cut in found:
        by_block.setdefault(cut.block, []).append(cut)
    return by_block


def part_names(part: str) -> tuple[str, str]:
    """A part of a block in words, and its units."""
    return PARTS.get(part, (part.replace("_", " "), "units"))


def _kept(content: Any, units: int) -> Sequence[int] | None:
    whole = isinstance(content, Sequence) and all(
        isinstance(each, int) and 0 <= each < units for each in content
    )
    return content if whole else None


def _curve(content: Any) -> Curve | None:
    widths, error = _numbers(at(content, "units")), _numbers(at(content, "error"))
    damage = _numbers(at(content, "damage"))
    if not widths or error is None or len(error) != len(widths):
        return None
    fits = damage is not None and len(damage) == len(widths)
    return Curve([int(each) for each in widths], error, damage if fits else None)


def _numbers(content: Any) -> list[float] | None:
    if not isinstance(content, Sequence) or isinstance(content, str):
        return None
    found = [number(each) for each in content]
    return None if None in found else [each for each in found if each is not None]


def _measured(content: Mapping[str, Any]) -> list[Cut]:
    found = []
    for site, curve in content["curves"].items():
        error = _numbers(curve.get("error"))
        if error and len(error) > 1:
            units = len(error) - 1
            sampled = drawn(error, units, _damage(error, curve.get("measured")))
            found.append(Cut(site, units, None, None, None, _curve(sampled)))
    return found


def _damage(error: Sequence[float], measured: Any) -> list[float] | None:
    pairs = [_numbers(each) for each in measured] if isinstance(measured, Sequence) else []
    whole = [
        (int(pair[0]), pair[1]) for pair in pairs if pair and len(pair) == 2 and 0 <= pair[0] < len(error)
    ]
    if not whole:
        return None
    found: list[float] = DamageCurve(np.array(error), whole).damage().tolist()
    return found
