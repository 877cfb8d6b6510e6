"""Error as a function of units kept, one curve a site."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Curve:
    """What dropping units costs at one site; every tensor is float64 on the CPU.

    `output` (units + 1,): error of the consumer's output when the first k units are kept and the consumer is
    corrected, a Frobenius norm over all calibration tokens; non-increasing, 0 at full width.
    `trailing` (units + 1,): what the published rule averages; ||R_22||_F for neurons, `output` for heads.
    `steps` (units,): what the published rule compares with its threshold; |R_kk| for neurons, the error of
    keeping k = 0 ... units - 1 for heads.
    """

    output: Tensor
    trailing: Tensor
    steps: Tensor

    def relative(self) -> Tensor:
        """Squared output error over that of keeping nothing, (units + 1,); 0 at a silent site."""
        squares = self.output**2
        return squares / squares[0] if float(squares[0]) > 0 else squares


Curves = Mapping[str, Curve]
