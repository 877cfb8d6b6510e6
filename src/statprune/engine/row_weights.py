"""How much each token counts in the fits of a site: as much as a norm behind it lets its error count.

Whatever reads a hidden state normalises it first, in front of a sublayer or behind it: an error counts
relative to the size of the token's own hidden state. Sizes differ. A few tokens, often those that heads heed
where there is nothing to heed, have hidden states ten times as large as the others' or more, and by plain
squares fits would serve them before all.

Source: Sun et al., "Massive activations in large language models", COLM 2024, for such tokens.
"""

import torch
from torch import Tensor

from statprune.anatomy.sites import Site
from statprune.linalg.row_weights import wide

LEAST = 1e-4
"""Of the median variance of the tokens at hand: what is smaller counts as if it were so large."""


def row_weights_of(
    site: Site,
    hidden: Tensor,  # (tokens, width)
) -> Tensor:
    """Weights of squared errors, (tokens,) above 0, float32 or float64: one over the variance of each token.

    Norms divide by that, or by the mean square, which is nearly the same. All ones where no norm reads it.

    Args:
        site: whose output it is a part of.
        hidden: its dense output and what that is added to (`residual`), together.
    """
    variance = _variance(wide(hidden))
    if not bool(torch.isfinite(variance).all()):  # squares overflow
        variance = _variance(hidden.double())
    middle = variance.median() if len(variance) else variance.sum()
    least = LEAST * float(middle if middle > 0 else variance.mean())
    if not site.normalised or not least > 0:
        return torch.ones_like(variance)
    return variance.clamp(min=least).reciprocal().clamp(min=torch.finfo(torch.float32).tiny)


def _variance(hidden: Tensor) -> Tensor:
    return hidden.var(dim=1, correction=0) if len(hidden) else hidden.new_zeros(0)
