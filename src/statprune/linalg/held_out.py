"""What a consumer becomes: a least-squares fit whose damping is chosen on rows held out.

The target of a consumer in a thinned network has two parts,

    Y = Z W^T + D,

what its own dense weight makes of the units it is given, and what earlier cuts have lost on the way (D). The
first is a linear function of Z without any noise; the second is not a function of Z at all: a fit follows it
as far as the two are related, and with few rows further. So each part has its own damping, a small fixed one
for the first, and for the second one that is chosen by the error on rows that the fit has not seen:

    B = (G_kk + lambda_1)^-1 G_k W^T  +  (G_kk + lambda_2)^-1 Z_k^T D.

With lambda_2 = infinity this is STAT's correction on the thinned network's inputs, with a small one full
compensation. Of the dampings whose errors are nearly the least the largest is taken: it serves text of
another kind than the calibration's better.

Sources: ridge regression by held-out error and the rule of the simplest model near the best, Hastie,
Tibshirani & Friedman, The Elements of Statistical Learning, 2nd ed., chapter 7; the compensated target:
docs/algorithm.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from torch import Tensor

from statprune.linalg.least_squares import ridge
from statprune.linalg.moments import Moments

LOCAL = 1e-4
"""Damping of the first part, as a share of the mean diagonal of G."""

DAMPINGS = (1e-1, 1e-2, 1e-3)
"""Tried for the second part, largest first; before them nothing, then infinity."""

NEARLY = 0.005
"""How much more of the error, as a share of the gain, a larger damping may leave."""

NOISE = 1e-6
"""What earlier cuts have lost counts for nothing up to this share of the targets' energy."""

NONE = float("inf")
"""The damping that leaves the second part out."""


@dataclass(frozen=True, eq=False)
class Compensation:
    """How far what was lost can be made good, with all columns.

    Attributes:
        B: (m, out) the fit of D.
        damping: its lambda_2, NONE where no fit serves the rows held out.
        held_out: ||D - Z B||^2 / ||D||^2 on the rows held out; 1 where nothing can be made good.
    """

    B: Tensor
    damping: float
    held_out: float


def compensation(
    lost: Moments,  # moments of D = Y - Z W^T on the rows of the fit
    held: Moments,  # the same on the rows held out
    *,
    dampings: Sequence[float] = DAMPINGS,
) -> Compensation:
    """The fit of D on all columns whose damping serves the rows held out best, or nearly so.

    `dampings` come largest first; behind one that serves those rows worse than the one before it, none is
    tried.

    Raises:
        NumericalError: a damped Gram matrix has no Cholesky factor, whatever the rescue.
    """
    found = [Compensation(lost.C.new_zeros(()).expand_as(lost.C), NONE, 1.0)]
    before = inf
    for damping in dampings if held.energy > 0 and _any(lost.G) else ():
        found.append(_tried(lost, held, damping))
        if found[-1].held_out > before:  # smaller ones would follow noise further
            break
        before = found[-1].held_out
        least = min(each.held_out for each in found)
        # What is too far from the least stays so: its fit is not kept.
        found = [each for each in found if each.held_out <= least + NEARLY * (1 - least)]
    return found[0]


def _tried(lost: Moments, held: Moments, damping: float) -> Compensation:
    B = ridge(lost.G, lost.C, damping).X
    return Compensation(B, damping, held.error(B) / held.energy)


def _any(G: Tensor) -> bool:
    """Whether any column has moved: else there is nothing to fit with."""
    return bool((G.diagonal() > 0).any())


def damping_of_choice(found: Compensation, lost: float, energy: float, eps: float = 0.0) -> float:
    """That of choosing units: of the fit that makes good what was `lost`, if that is more than noise.

    A large one takes units that are nearly one another's copies for different ones.

    Args:
        found: the fit of what was lost.
        lost: its energy, over all rows.
        energy: that of the targets.
        eps: of the dtype in which targets were computed: what its rounding makes is no loss.
    """
    noise = max(NOISE, (2 * eps) ** 2)
    return LOCAL if found.damping == NONE or lost <= noise * energy else found.damping


@dataclass(frozen=True, eq=False)
class ConsumerFit:
    """A consumer's new weight and what was found out on the way.

    Attributes:
        B: (kept columns, out), the transposed weight.
        shift: (out,) what is added to the consumer's bias; zero where the fit has no constant.
        error: ||Y - Z B||^2 / ||Y||^2 over all rows.
        condition: of the matrix solved with for the first part.
    """

    B: Tensor
    shift: Tensor
    error: float
    condition: float


def fit_consumer(
    whole: Moments,  # of all rows
    weight: Tensor,  # (out, m) the dense weight
    kept: Tensor,  # (count,) int64 columns, sorted
    damping: float,  # lambda_2
) -> ConsumerFit:
    """The consumer of the columns `kept`.

    Raises:
        NumericalError: a damped Gram matrix has no Cholesky factor, whatever the rescue.
    """
    W = weight.T.to(whole.G)
    if kept.numel() == whole.G.shape[0]:  # nothing is dropped: the dense weight is the fit
        part, local, B, condition = whole, whole.G @ W, W[kept], 1.0
    else:
        local = whole.G[kept] @ W
        part = whole.of(kept)
        B, condition = W[kept], 1.0
        if _any(part.G):
            solved = ridge(part.G, local, LOCAL)
            B, condition = solved.X, solved.condition
    if damping != NONE and _any(part.G):
        B = B + ridge(part.G, part.C - local, damping).X
    return ConsumerFit(
        B=B,
        shift=part.shift(B),
        error=part.error(B) / whole.energy if whole.energy > 0 else 0.0,
        condition=condition,
    )
