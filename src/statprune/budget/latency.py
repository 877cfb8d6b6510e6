"""What a plan costs in time: measured per width on one device, interpolated between the widths measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from statprune.anatomy.sites import Site
from statprune.budget.plan import Plan, full


@dataclass(frozen=True)
class Latency:
    """Seconds of the blocks for one batch; a `Price`.

    `seconds[site name]` holds (width, seconds) pairs, ascending in width: what a block took with this site at
    that width, less what it took at all other sites. `conditions` says of what batch, on what device.
    """

    seconds: Mapping[str, Sequence[tuple[int, float]]]
    conditions: Mapping[str, Any]

    @property
    def of(self) -> str:
        """The name of what is counted."""
        return "latency"

    @property
    def counts(self) -> bool:
        """Costs are not whole numbers."""
        return False

    def of_width(self, site: Site, width: int) -> float:
        """Seconds of `site` with `width` units."""
        return float(self.of_widths(site, [width])[0])

    def of_widths(self, site: Site, widths: Sequence[int]) -> NDArray[np.float64]:
        """The same for several widths at once, (len(widths),)."""
        measured, seconds = zip(*self.seconds[site.name], strict=True)
        return np.asarray(np.interp(widths, measured, seconds), dtype=np.float64)

    def of_plan(self, plan: Plan, sites: Sequence[Site]) -> float:
        """Seconds of the blocks under `plan`."""
        return sum(self.of_width(site, plan[site]) for site in sites)

    def dense(self, sites: Sequence[Site]) -> float:
        """Seconds of the blocks at full width."""
        return self.of_plan(full(sites), sites)

    def to_json(self) -> dict[str, Any]:
        """JSON-able content."""
        return {
            "seconds": {name: [list(pair) for pair in pairs] for name, pairs in self.seconds.items()},
            "conditions": dict(self.conditions),
        }

    @classmethod
    def of_json(cls, content: Mapping[str, Any]) -> "Latency":
        """The inverse of `to_json`."""
        seconds = {
            name: [(int(width), float(time)) for width, time in pairs]
            for name, pairs in content["seconds"].items()
        }
        return cls(seconds, content["conditions"])
