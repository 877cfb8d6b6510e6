"""Error curve + measured sensitivity -> damage curve: what a width of one site costs the whole model.

Errors of different sites cannot be compared: the same relative error does a hundred times more harm in one
block than in another. So one site at a time is narrowed to a few widths, and the divergence of the model's
outputs is measured. Between the widths measured, the logarithm of the damage is linear in that of the site's
relative squared error; beyond them, damage and error are in proportion, as they are found to be nearly
everywhere (docs/algorithm.md).

Sources: docs/algorithm.md; cost-aware choice over measured curves, Frantar & Alistarh, "SPDY", ICML 2022.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class DamageCurve:
    """What one site can lose, and what that does.

    `error` (units + 1,): squared error of the consumer's output, over that of keeping nothing, when the best
    k units are kept and the consumer is fitted again; non-increasing, 0 at full width.
    `measured`: (width, divergence of the model's outputs with only this site at that width).
    """

    error: Floats
    measured: Sequence[tuple[int, float]]

    def damage(self) -> Floats:
        """Predicted divergence at every width, (units + 1,); non-increasing, 0 at full width."""
        tiny = np.finfo(np.float64).tiny
        points = sorted(
            (max(self.error[k], tiny), max(found, tiny)) for k, found in self.measured if self.error[k] > 0
        )
        if not points:
            return self.error.copy()
        errors, damages = np.log(np.array(points)).T
        logs = np.log(np.maximum(self.error, tiny))
        damage = np.interp(logs, errors, damages)
        damage = np.where(logs < errors[0], damages[0] + logs - errors[0], damage)
        damage = np.where(logs > errors[-1], damages[-1] + logs - errors[-1], damage)
        whole = np.where(self.error > 0, np.exp(damage), 0.0)
        return np.maximum.accumulate(whole[::-1])[::-1]


DamageCurves = Mapping[str, DamageCurve]


def widths_to_measure(error: Floats, levels: Sequence[float]) -> list[int]:
    """The widest width at which the relative squared error reaches each of `levels`, without repeats."""
    reached = [int(np.nonzero(error >= level)[0].max()) for level in levels if error[0] >= level]
    return sorted({max(1, width) for width in reached if error[max(1, width)] > 0})
