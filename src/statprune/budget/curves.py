"""Error as a function of units kept, one curve a site."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

MOST_POINTS = 65
"""Of a curve that is written down: enough for a picture, and few for a model of thousands of neurons."""


@dataclass(frozen=True, eq=False)
class Curve:
    """What dropping units costs at one site; every tensor is float64 on the CPU.

    `output` (units + 1,): error of the consumer's output when the first k units are kept and the consumer is
    corrected, a Frobenius norm over all calibration tokens; non-increasing, 0 at full width.
    `trailing` (units + 1,): what the published rule averages; ||R_22||_F for neurons, `output` for heads.
    `steps` (units,): what the published rule compares with its threshold; |R_kk| for neurons, the error of
    keeping k = 0 ... units - 1 for heads.
    """

    output: "Tensor"
    trailing: "Tensor"
    steps: "Tensor"

    def relative(self) -> "Tensor":
        """Squared output error over that of keeping nothing, (units + 1,); 0 at a silent site."""
        squares = self.output**2
        return squares / squares[0] if float(squares[0]) > 0 else squares


Curves = Mapping[str, Curve]


def drawn(
    squared_error: Sequence[float], kept: int, damage: Sequence[float] | None = None, most: int = MOST_POINTS
) -> dict[str, list[float] | list[int] | None]:
    """A curve as a run's record has it, JSON-able: at most `most` widths and the one chosen.

    Args:
        squared_error: (units + 1,), squared relative error of the consumer's output at every width.
        kept: the width chosen.
        damage: (units + 1,), damage predicted at every width; None where none was measured.
        most: widths, evenly spaced from none to all.

    Returns:
        "units": widths; "error": ||Y - Y_k||_F / ||Y||_F there; "damage", or None.
    """
    units = len(squared_error) - 1
    count = min(most, units + 1)
    widths = sorted({round(units * step / max(count - 1, 1)) for step in range(count)} | {kept})
    return {
        "units": widths,
        "error": [float(max(float(squared_error[width]), 0.0) ** 0.5) for width in widths],
        "damage": None if damage is None else [float(damage[width]) for width in widths],
    }


def drawn_of(curves: Curves, widths: Mapping[str, int]) -> dict[str, Any]:
    """`drawn` of every site, with the widths chosen."""
    return {name: drawn(curve.relative().tolist(), widths[name]) for name, curve in curves.items()}
