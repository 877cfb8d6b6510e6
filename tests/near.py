"""Two compressions that agree but for rounding."""

import statprune

BOUND = 1e-4
"""Of the largest weight of a tensor: sums in float32 run in another order."""


def require_near(one: statprune.Result, other: statprune.Result) -> None:
    """The same choices, and weights but for rounding."""
    assert one.plan.widths == other.plan.widths
    assert [site.kept for site in one.trace.sites] == [site.kept for site in other.trace.sites]
    assert one.model is not None
    assert other.model is not None
    state = other.model.state_dict()
    for name, value in one.model.state_dict().items():
        assert (state[name] - value).abs().max() <= BOUND * value.abs().max(), name
