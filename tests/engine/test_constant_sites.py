"""A site whose activations never move: what it brings is a constant, and belongs to the consumer's bias."""

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

import statprune
from statprune.anatomy.lookup import anatomy_of
from statprune.anatomy.producers import module_at
from statprune.surgery.linear import weight_of
from tests.tiny import tiny_batch, tiny_model


@pytest.mark.parametrize(("family", "producer"), [("gpt2", "mlp.c_fc"), ("bert", "intermediate.dense")])
@torch.no_grad()
def test_its_units_go_and_nothing_changes(family: str, producer: str) -> None:
    dense, model = tiny_model(family), tiny_model(family)
    generator = torch.Generator().manual_seed(3)
    bias = None
    for each in (dense, model):
        linear = module_at(anatomy_of(each).blocks[1], producer)
        weight_of(linear).zero_()
        bias = torch.randn(linear.bias.shape, generator=generator) if bias is None else bias
        linear.bias.copy_(bias)
    batches = [tiny_batch(model, rows=16, length=12, seed=seed) for seed in (1, 2)]
    made = statprune.compress(model, data=batches, plan={"blocks.1.feed_forward": 5})
    assert made.plan.widths["blocks.1.feed_forward"] == 5
    test = tiny_batch(dense, rows=8, length=12, seed=9)
    before, after = (outputs(each, test) for each in (dense, made.model))
    torch.testing.assert_close(before, after, atol=2e-5, rtol=1e-4)


def outputs(model: PreTrainedModel, batch: dict[str, Tensor]) -> Tensor:
    found = model(**batch)
    return found.logits if "logits" in found else found.last_hidden_state
