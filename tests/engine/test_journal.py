"""Blocks that become again what an earlier run has made of them."""

import torch

from statprune.anatomy.lookup import anatomy_of
from statprune.anatomy.shelf import State
from statprune.engine.journal import narrow_again
from statprune.surgery.undo import remember
from tests.tiny import tiny_model


def test_weights_that_someone_remembers_stay_as_they_were() -> None:
    """A block of which nothing is cut gets other weights, in another place."""
    model = tiny_model("bert")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    restore, anatomy = remember(model), anatomy_of(model)
    block = anatomy.blocks[0]
    state = State({name: value + 1 for name, value in block.named_parameters()}, {"sites": []})
    narrow_again(block, anatomy.sites_of_block(0), state)
    assert not torch.equal(model.state_dict()["bert.encoder.layer.0.output.dense.bias"],
                           before["bert.encoder.layer.0.output.dense.bias"])  # fmt: skip
    restore()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
