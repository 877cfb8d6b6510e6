"""Solving with a triangle or a Gram matrix, with a rescue that is bounded, announced and named.

Both solvers report an estimate of the 1-norm condition number.  Where it says that the digits are gone they
damp: a little, with a warning that says how much; then ten times more; then they stop with an error that says
what to do.

Sources: Hager 1984 and Higham 1988 (ACM TOMS 14, 381-396, algorithm 4.1) for the condition estimate; Bjorck,
Numerical Methods for Least Squares Problems, 1996, for damping through the stacked matrix.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy.linalg import lapack
from torch import Tensor

from statprune.errors import NumericalError, NumericalWarning
from statprune.linalg.checks import require_matrix

_PANEL = 384  # columns whose absolute values are summed at a time


@dataclass(frozen=True, eq=False)
class Solution:
    """What a solve returns.

    Attributes:
        X: the solution, dtype and device of the matrix.
        condition: estimated 1-norm condition number of the matrix last solved with, damping included.
        damping: what was added: lambda for `solve_upper`, the share of the mean diagonal of G for `ridge`.
    """

    X: Tensor
    condition: float
    damping: float


def solve_upper(
    R: Tensor,  # (k, k) upper triangular
    B: Tensor,  # (k, columns)
    *,
    max_condition: float | None = None,
    attempts: int = 3,
) -> Solution:
    """X with R X = B; where R is too badly conditioned, the X of least ||R X - B||^2 + lambda^2 ||X||^2.

    `max_condition` is 0.1 / eps of the dtype unless given.  The first lambda is k eps ||R||_F and each
    further attempt takes ten times more: with the default limit the second attempt always meets it.  The
    damped problem is solved by QR of [R; lambda I], never through R^T R.

    Raises:
        ValueError: R is not square or B does not match it.
        NonFiniteError: R or B holds NaN or infinity.
        NumericalError: the condition is still above the limit after `attempts` dampings.
    """
    _require_system(R, B)
    k = R.shape[0]
    if k == 0:
        return Solution(X=B.clone(), condition=1.0, damping=0.0)
    eps = torch.finfo(R.dtype).eps
    limit = 0.1 / eps if max_condition is None else max_condition
    condition = found = condition_of_upper(R)
    if condition <= limit:
        return Solution(X=torch.linalg.solve_triangular(R, B, upper=True), condition=condition, damping=0.0)

    damping = k * eps * float(torch.linalg.matrix_norm(R))
    for _ in range(attempts):
        stacked = torch.cat([R, damping * torch.eye(k, dtype=R.dtype, device=R.device)])
        Q, triangle = torch.linalg.qr(stacked)
        condition = condition_of_upper(triangle)
        if condition <= limit:
            _announce(f"solve_upper: condition {found:.1e} is above {limit:.1e}; damped by {damping:.1e}.")
            X = torch.linalg.solve_triangular(triangle, Q[:k].T @ B, upper=True)
            return Solution(X=X, condition=condition, damping=damping)
        damping *= 10
    raise NumericalError(
        f"solve_upper: condition {found:.1e} of a {k} x {k} triangle is above {limit:.1e}, and still "
        f"{condition:.1e} after {attempts} dampings. Keep fewer units, give more calibration rows, "
        "or factor in torch.float64."
    )


def ridge(
    G: Tensor,  # (m, m) symmetric positive semidefinite
    C: Tensor,  # (m, columns)
    damping: float = 0.0,
    *,
    max_condition: float | None = None,
    attempts: int = 3,
) -> Solution:
    """X with (G + damping * mean(diag G) I) X = C, by Cholesky: damped normal equations.

    X minimises ||Z X - Y||^2 + damping * mean(diag G) ||X||^2 for G = Z^T Z, C = Z^T Y.  Only where the
    factor does not exist, or its condition is above `max_condition` (0.1 / eps unless given), m eps is added
    to `damping`, ten times more on each further attempt; `Solution.damping` is what was used in the end.

    Raises:
        ValueError: G is not square, C does not match it, or `damping` is negative.
        NonFiniteError: G or C holds NaN or infinity.
        NumericalError: no usable factor after `attempts` rescues.
    """
    _require_system(G, C)
    factor = damped_factor(G, damping, max_condition=max_condition, attempts=attempts)
    # As torch.cholesky_solve, which copies the factor.
    X = C.mT.clone(memory_format=torch.contiguous_format).mT
    torch.linalg.solve_triangular(factor.lower, X, upper=False, out=X)
    torch.linalg.solve_triangular(factor.lower.mT, X, upper=True, out=X)
    return Solution(X=X, condition=factor.condition, damping=factor.damping)


@dataclass(frozen=True, eq=False)
class DampedFactor:
    """What `damped_factor` returns.

    Attributes:
        lower: (m, m) lower Cholesky factor of G + damping * mean(diag G) I.
        condition: estimated 1-norm condition number of that matrix.
        damping: what was added, as a share of the mean diagonal of G.
    """

    lower: Tensor
    condition: float
    damping: float


def damped_factor(
    G: Tensor,  # (m, m) symmetric positive semidefinite
    damping: float = 0.0,
    *,
    max_condition: float | None = None,
    attempts: int = 3,
) -> DampedFactor:
    """The Cholesky factor of G + damping * mean(diag G) I, with the rescue that `ridge` describes.

    Raises:
        TypeError, ValueError: G is not a square matrix of float32 or float64, or `damping` is negative.
        NonFiniteError: G holds NaN or infinity.
        NumericalError: no usable factor after `attempts` rescues.
    """
    _require_system(G, G)
    if damping < 0:
        raise ValueError(f"damping is {damping}; it must not be negative.")
    m = G.shape[0]
    if m == 0:
        return DampedFactor(lower=G.clone(), condition=1.0, damping=damping)
    limit = 0.1 / torch.finfo(G.dtype).eps if max_condition is None else max_condition
    mean = float(G.diagonal().double().mean())
    condition = float("inf")
    for rescue in _rescues(m * torch.finfo(G.dtype).eps, attempts):
        used = damping + rescue
        # One copy, columns first, becomes the factor.
        lower = G.mT.clone(memory_format=torch.contiguous_format).mT
        lower.diagonal().add_(used * mean)
        norm = one_norm(lower)
        failed = torch.zeros((), dtype=torch.int32, device=G.device)
        torch.linalg.cholesky_ex(lower, out=(lower, failed))
        if int(failed) == 0:
            condition = condition_of_positive(norm, lower)
            if condition <= limit:
                if rescue:
                    _announce(f"ridge: damping raised from {damping:.1e} to {used:.1e} of the mean diagonal.")
                return DampedFactor(lower=lower, condition=condition, damping=used)
    raise NumericalError(
        f"ridge: a {m} x {m} Gram matrix of mean diagonal {mean:.1e} has no Cholesky factor of condition "
        f"below {limit:.1e} (last {condition:.1e}) after {attempts} rescues up to damping {used:.1e}. "
        "Raise damping or give more calibration rows."
    )


def condition_of_upper(
    R: Tensor,  # (k, k) upper triangular, k > 0
) -> float:
    """Estimated ||R||_1 ||R^-1||_1, a lower bound; inf where the diagonal has a zero.

    LAPACK `trcon` for tensors on the CPU, the Hager-Higham iteration on triangular solves elsewhere.
    """
    if bool((R.diagonal() == 0).any()):
        return float("inf")
    if R.device.type == "cpu":
        trcon = lapack.dtrcon if R.dtype == torch.float64 else lapack.strcon
        return _reciprocal(float(trcon(R.detach().numpy())[0]))
    return upper_by_iteration(R)


def upper_by_iteration(R: Tensor) -> float:
    """`condition_of_upper` on any device; the diagonal has no zero."""
    return float(torch.linalg.matrix_norm(R, 1)) * inverse_one_norm(
        lambda b: torch.linalg.solve_triangular(R, b, upper=True),
        lambda b: torch.linalg.solve_triangular(R.T, b, upper=False),
        R.new_full((R.shape[0], 1), 1 / R.shape[0]),
    )


def one_norm(G: Tensor) -> float:
    """||G||_1 of a matrix that is not empty, some columns at a time."""
    return max(float(part.abs().sum(dim=0).max()) for part in torch.split(G, _PANEL, dim=1))


def condition_of_positive(
    norm: float,  # ||G||_1 of G (m, m) symmetric positive definite, m > 0
    lower: Tensor,  # (m, m) its lower Cholesky factor
) -> float:
    """Estimated ||G||_1 ||G^-1||_1: LAPACK `pocon` on the CPU, Hager-Higham elsewhere."""
    if lower.device.type == "cpu":
        pocon = lapack.dpocon if lower.dtype == torch.float64 else lapack.spocon
        return _reciprocal(float(pocon(lower.detach().numpy(), norm, uplo="L")[0]))
    return positive_by_iteration(norm, lower)


def positive_by_iteration(norm: float, lower: Tensor) -> float:
    """`condition_of_positive` on any device."""

    def solve(b: Tensor) -> Tensor:
        return torch.cholesky_solve(b, lower)

    return norm * inverse_one_norm(solve, solve, lower.new_full((len(lower), 1), 1 / len(lower)))


def inverse_one_norm(
    solve: Callable[[Tensor], Tensor],  # b (k, 1) -> A^-1 b
    solve_transposed: Callable[[Tensor], Tensor],  # b (k, 1) -> A^-T b
    start: Tensor,  # (k, 1) filled with 1 / k
) -> float:
    """A lower bound of ||A^-1||_1, nearly always within a factor of 3 (Higham 1988, algorithm 4.1)."""
    k = start.shape[0]
    x, estimate = start, 0.0
    for _ in range(5):
        y = solve(x)
        if float(y.abs().sum()) <= estimate:
            break
        estimate = float(y.abs().sum())
        z = solve_transposed(torch.where(y >= 0, 1.0, -1.0).to(y))
        steepest = int(z.abs().argmax())
        if float(z.abs()[steepest]) <= float((z * x).sum()):
            break
        x = torch.zeros_like(start)
        x[steepest] = 1
    # Higham's safeguard for matrices that fool the iteration: growing entries of alternating signs.
    growing = 1 + torch.arange(k, dtype=start.dtype, device=start.device) / max(k - 1, 1)
    growing[1::2] *= -1
    return max(estimate, 2 * float(solve(growing[:, None]).abs().sum()) / (3 * k))


def _rescues(first: float, attempts: int) -> list[float]:
    return [0.0, *(first * 10**attempt for attempt in range(attempts))]


def _require_system(A: Tensor, B: Tensor) -> None:
    require_matrix(A, "the matrix")
    require_matrix(B, "the right-hand side")
    if A.shape[0] != A.shape[1] or A.shape[0] != B.shape[0]:
        raise ValueError(f"cannot solve {tuple(A.shape)} against {tuple(B.shape)}.")


def _reciprocal(value: float) -> float:
    return 1 / value if value > 0 else float("inf")


def _announce(message: str) -> None:
    warnings.warn(message, NumericalWarning, stacklevel=3)
