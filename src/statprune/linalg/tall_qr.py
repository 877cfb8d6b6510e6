"""The triangle of Z, batch by batch: R <- qr([R; next rows]).

R^T R = Z^T Z without the product ever being formed, so no digits are lost to squaring: pivots are right down
to eps of the largest, where a Gram matrix stops at sqrt(eps).  About the same memory,
and several times the work.

Source: Demmel, Grigori, Hoemmen & Langou 2012, SIAM J. Sci. Comput. 34(1), A206-A239 (TSQR).
"""

from __future__ import annotations

import torch
from torch import Tensor

from statprune.linalg.checks import require_width
from statprune.linalg.factor import Factor
from statprune.linalg.interpolative import by_pivoted_qr


class TallQR:
    """The triangle of all rows seen; an `Accumulator`.

    Rows are held back until there are about `width` of them, so that small batches do not each pay for a QR.
    Memory about 3 width^2; n rows cost 4 n width^2 FLOP.

    Args:
        width: columns of Z.
        device: where the triangle lives; rows are moved there.
        dtype: of the triangle, float32 or float64.
    """

    def __init__(
        self, width: int, *, device: torch.device | str | None = None, dtype: torch.dtype = torch.float64
    ) -> None:
        self._triangle = torch.zeros(0, width, device=device, dtype=dtype)
        self._waiting: list[Tensor] = []
        self._rows = 0

    @property
    def rows(self) -> int:
        """Rows of Z seen so far."""
        return self._rows

    @property
    def R(self) -> Tensor:  # noqa: N802
        """R with R^T R = Z^T Z, (min(rows, width), width), upper triangular, diagonal not negative."""
        if self._waiting:
            self._reduce()
        return self._triangle.clone()

    def update(
        self,
        Z: Tensor,  # (n, width)
    ) -> None:
        """Take in the rows of Z.

        Raises:
            TypeError, ValueError: Z is not (n, width) of floating-point numbers.
            NonFiniteError: Z holds NaN or infinity; nothing is taken in.
        """
        width = self._triangle.shape[1]
        require_width(Z, width, "Z")
        for start in range(0, Z.shape[0], width):
            # A copy even where nothing is cast: what is held back must not change under us.
            self._waiting.append(Z[start : start + width].to(self._triangle, copy=True))
            if sum(waiting.shape[0] for waiting in self._waiting) >= width:
                self._reduce()
        self._rows += Z.shape[0]

    def merge(self, other: TallQR) -> None:
        """Take in what `other` has seen, through its triangle.

        Raises:
            ValueError: the widths differ.
        """
        if self._triangle.shape[1] != other._triangle.shape[1]:
            raise ValueError(
                f"cannot merge width {other._triangle.shape[1]} into width {self._triangle.shape[1]}."
            )
        self._waiting.append(other.R.to(self._triangle))
        self._reduce()
        self._rows += other._rows

    def factor(self, scale: Tensor | None = None, unit: int = 1) -> Factor:
        """Pivoted QR of R D; see `by_pivoted_qr`.

        Every order and every error depends on Z only through inner products of its columns, and R has the
        same. That holds for flattened units too: their inner products are the traces of R_h^T R_h' = Z_h^T
        Z_h'.
        """
        return by_pivoted_qr(self.R, scale=scale, unit=unit)

    def _reduce(self) -> None:
        R = torch.linalg.qr(torch.cat([self._triangle, *self._waiting]), mode="r").R
        sign = torch.where(R.diagonal() < 0, -1, 1).to(R.dtype)
        self._triangle = sign[:, None] * R
        self._waiting = []
