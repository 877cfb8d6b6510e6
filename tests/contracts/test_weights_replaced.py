"""What surgery puts in a weight's place: the sum that was asked for, and trained or not as before."""

import pytest
import torch
from torch import nn

from statprune.anatomy.lookup import anatomy_of
from statprune.anatomy.producers import module_at
from statprune.surgery.experts import keep_neurons
from statprune.surgery.linear import add_to_bias, set_weight
from tests.tiny import tiny_model


@pytest.mark.parametrize("trained", [False, True])
def test_a_linear_layer(trained: bool) -> None:
    linear = nn.Linear(3, 2).requires_grad_(trained)
    bias, shift = linear.bias.detach().clone(), torch.tensor([1.0, -2.0])
    add_to_bias(linear, shift)
    torch.testing.assert_close(linear.bias.detach() - bias, shift)
    set_weight(linear, torch.ones(2, 1))
    assert (linear.in_features, linear.out_features) == (1, 2)
    assert {linear.weight.requires_grad, linear.bias.requires_grad} == {trained}


@pytest.mark.parametrize("trained", [False, True])
def test_experts(trained: bool) -> None:
    model = tiny_model("mixtral").requires_grad_(trained)
    site = next(each for each in anatomy_of(model).sites if each.experts)
    experts = module_at(anatomy_of(model).blocks[0], site.consumer)
    before = experts.gate_up_proj.detach().clone()
    keep_neurons(experts, torch.tensor([[0, 2]] * 4), torch.ones(4, 32, 2))
    assert torch.equal(experts.gate_up_proj.detach(), before[:, [0, 2, 40, 42]])
    assert {each.requires_grad for each in experts.parameters()} == {trained}
