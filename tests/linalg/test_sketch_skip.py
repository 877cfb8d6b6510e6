"""Sketches of parts that together draw what one sketch of all rows draws."""

import pytest
import torch

from statprune.linalg.sketch import CountSketch, GaussianSketch


@pytest.mark.parametrize("kind", [GaussianSketch, CountSketch])
@pytest.mark.parametrize("split", [1, 255, 256, 300, 599])
def test_parts_that_skip_add_up_to_the_whole(kind, split: int) -> None:
    Z = torch.randn(600, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    whole, first, second = (kind(5, 40, generator=torch.Generator().manual_seed(3)) for _ in range(3))
    whole.update(Z)
    first.update(Z[:split])
    second.skip(split)
    second.update(Z[split:])
    first.merge(second)
    assert first.rows == 600
    torch.testing.assert_close(first.matrix, whole.matrix, rtol=0, atol=1e-12)


def test_what_has_begun_does_not_skip() -> None:
    sketch = CountSketch(5, 40, generator=torch.Generator().manual_seed(3))
    sketch.update(torch.ones(3, 5))
    with pytest.raises(ValueError, match="3 rows were drawn for"):
        sketch.skip(2)
