"""The plans whose speed is measured keep the share that they are named after, uniform and block by block."""

import pytest
import torch

from benchmarks.latency.shapes import WIDTHS, narrowed, plan_of, spread, tiny
from statprune.anatomy.lookup import anatomy_of
from statprune.budget.cost import Cost


@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.parametrize("keep", [0.75, 0.5])
def test_a_narrowed_model_keeps_the_share(widths: str, keep: float) -> None:
    dense = tiny()
    anatomy = anatomy_of(dense)
    params = Cost("params", 1)
    model = narrowed(dense, plan_of(anatomy, keep, widths, seed=3))
    sites = anatomy_of(model).sites
    # A multiple of neurons in each block, at most, of 64 x 3 weights a neuron.
    assert abs(params.dense(sites) / params.dense(anatomy.sites) - keep) < WIDTHS[widths] * 4 * 192 / 188_416
    neurons = [site.units for site in sites if site.kind == "feed_forward"]
    assert all(count % WIDTHS[widths] == 0 for count in neurons)
    assert (len(set(neurons)) == 1) == (widths == "uniform")
    assert model(torch.arange(6)[None]).logits.isfinite().all()


def test_counts_are_spread_within_their_limits() -> None:
    assert spread([10.0, 20.0, 30.0], [12, 40, 40], 1) == [10, 20, 30]
    assert spread([30.0, 20.0, 10.0], [12, 40, 40], 4) == [12, 32, 16]
    assert spread([0.2, 9.8], [8, 8], 2) == [2, 8]
