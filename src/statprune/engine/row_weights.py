"""How much each token counts in the fits of a site: as much as a norm behind it lets its error count.

Whatever reads a hidden state normalises it first, in front of a sublayer or behind it: an error counts
relative to the size of the token's own hidden state. Sizes differ. A few tokens, often those that heads heed
where there is nothing to heed, have hidden states ten times as large as the others' or more, and by plain
squares fits would serve them before all.

Source: Sun et al., "Massive activations in large language models", COLM 2024, for such tokens.
"""

import torch
from torch import Tensor

SMALLEST = 1e-12
"""Of the mean square of a batch's hidden states: what is smaller counts as if it were that large."""


def row_weights_of(hidden: Tensor) -> Tensor:
    """Weights of squared errors, (tokens,) float32 or float64.

    Args:
        hidden: (tokens, width) the dense hidden state that the site's output is a part of, behind it.

    Returns:
        One over the variance of each token's numbers, which is what a norm divides by.
    """
    wide = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
    variance = wide.var(dim=1, correction=0)
    least = SMALLEST * float(variance.mean()) if len(variance) else 0.0
    return variance.clamp(min=max(least, torch.finfo(wide.dtype).tiny)).reciprocal()
