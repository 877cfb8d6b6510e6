"""What a consumer becomes: a least-squares fit whose dampings are chosen on rows held out.

The target of a consumer in a thinned network has two parts,

    Y = Z W^T + D,

what its own dense weight makes of the units it is given, and what earlier cuts have lost on the way (D). The
first is a linear function of Z without any noise, the second is not a function of Z at all: a fit follows it
as far as the two are related, and with few rows further. So each part has its own damping, and both are
chosen by the error on rows that the fit has not seen:

    B = (G_kk + lambda_1)^-1 G_k W^T  +  (G_kk + lambda_2)^-1 Z_k^T D.

A large lambda_2 leaves STAT's correction (on the thinned network's inputs), a small one full compensation.

Sources: ridge regression by held-out error, Hastie, Tibshirani & Friedman, The Elements of Statistical
Learning, 2nd ed., chapter 7; the compensated target: algorithm notes in docs/algorithm.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from statprune.linalg.least_squares import damped_factor
from statprune.linalg.moments import Moments

DAMPINGS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
"""Tried for each part, as shares of the mean diagonal of G."""

NONE = float("inf")
"""The damping that leaves a part out."""


@dataclass(frozen=True, eq=False)
class ConsumerFit:
    """A consumer's new weight and what was found out on the way.

    Attributes:
        B: (kept columns, out), the transposed weight.
        shift: (out,) what is added to the consumer's bias; zero where the fit has no constant.
        damping: of the local part; compensation_damping: of what earlier cuts lost, infinity for none.
        held_out: ||Y - Z B||^2 / ||Y||^2 on the rows held out.
        condition: of the matrix solved with for the local part.
    """

    B: Tensor
    shift: Tensor
    damping: float
    compensation_damping: float
    held_out: float
    condition: float


def compensation(
    lost: Moments,  # moments of D = Y - Z W^T on the rows of the fit
    held: Moments,  # the same on the rows held out
    *,
    dampings: Sequence[float] = DAMPINGS,
) -> tuple[Tensor, float]:
    """The fit of D on all columns that serves the rows held out best, (m, out), and its damping.

    Raises:
        NumericalError: no damping leads to a Cholesky factor.
    """
    best = torch.zeros_like(lost.C), NONE
    least = held.energy
    for damping in dampings:
        B = torch.cholesky_solve(lost.C, damped_factor(lost.G, damping).lower)
        error = held.error(B)
        if error < least:
            best, least = (B, damping), error
    return best


def fit_consumer(
    fit: Moments,
    held: Moments,
    weight: Tensor,  # (out, m) the dense weight
    kept: Tensor,  # (count,) int64 columns
    *,
    dampings: Sequence[float] = DAMPINGS,
) -> ConsumerFit:
    """The consumer of the columns `kept`, both dampings chosen on `held`, then fitted on `fit` and `held`.

    Raises:
        NumericalError: a damped Gram matrix has no Cholesky factor, whatever the rescue.
    """
    W = weight.T.to(fit.G)
    part, rest = fit.of(kept), held.of(kept)
    local, lost = (fit.G @ W)[kept], fit.C[kept] - (fit.G @ W)[kept]
    factors = {damping: damped_factor(part.G, damping).lower for damping in dampings}
    locals_ = {damping: torch.cholesky_solve(local, lower) for damping, lower in factors.items()}
    losts = {damping: torch.cholesky_solve(lost, lower) for damping, lower in factors.items()}
    losts[NONE] = torch.zeros_like(lost)
    errors = {(one, other): rest.error(locals_[one] + losts[other]) for one in locals_ for other in losts}
    damping, other = min(errors, key=lambda pair: errors[pair])
    whole = _together(part, rest)
    factor = damped_factor(whole.G, damping)
    all_local = ((fit.G + held.G) @ W)[kept]
    B = torch.cholesky_solve(all_local, factor.lower)
    if other != NONE:
        B += torch.cholesky_solve(whole.C - all_local, damped_factor(whole.G, other).lower)
    return ConsumerFit(
        B=B,
        shift=whole.mean_target - whole.mean_input @ B,
        damping=damping,
        compensation_damping=other,
        held_out=errors[damping, other] / held.energy if held.energy > 0 else 0.0,
        condition=factor.condition,
    )


def _together(one: Moments, other: Moments) -> Moments:
    """Both, which must be centred about the same means."""
    return Moments(
        one.G + other.G,
        one.C + other.C,
        one.energy + other.energy,
        one.mean_input,
        one.mean_target,
        one.rows + other.rows,
    )
