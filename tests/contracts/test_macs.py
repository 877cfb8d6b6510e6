"""Our count of multiply-accumulates against torch's own, block by block, dense and cut, for every entry."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from statprune.anatomy.lookup import Anatomy, anatomy_of
from statprune.anatomy.parts import Unprunable
from statprune.budget.cost import Cost, macs_of_pass
from statprune.calibration.batches import inputs_of
from tests.tiny import MODEL_TYPES, tiny_batch, tiny_model, uneven_cut, uniform_cut

ROWS, LENGTH = 3, 12
CUTS = {"dense": lambda model: model, "uneven": uneven_cut, "uniform": uniform_cut}


def lengths_of(model: PreTrainedModel) -> list[int]:
    """Tokens in each stack; an image and a recording have 10."""
    first = LENGTH if model.main_input_name == "input_ids" else 10
    return [first, LENGTH] if model.config.is_encoder_decoder else [first]


def counted_by_torch(model: PreTrainedModel, anatomy: Anatomy) -> int:
    """MACs of the blocks: all products that ran in them, scores included."""
    names = {id(module): name for name, module in model.named_modules()}
    model.set_attn_implementation("eager")  # the counter does not see into the fused kernel of a CPU
    model.requires_grad_(False)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(**inputs_of(model, tiny_batch(model, rows=ROWS, length=LENGTH)))
    counts = counter.get_flop_counts()
    blocks = (f"{type(model).__name__}.{names[id(block)]}" for block in anatomy.blocks)
    return sum(sum(counts[name].values()) for name in blocks) // 2


def of_no_site(model: PreTrainedModel, anatomy: Anatomy) -> int:
    """MACs in the blocks that are not counted by intent: what no site narrows, and DeBERTa's positions."""
    whole = 0
    narrowed = {(site.block, name) for site in anatomy.sites for name in site.weights}
    for run, own in zip(anatomy.runs, lengths_of(model), strict=True):
        for index, block in enumerate(run.blocks, run.start):
            for name, weight in block.named_parameters():
                owner = block.get_submodule(name.rpartition(".")[0])
                if weight.ndim > 1 and (index, name) not in narrowed and not isinstance(owner, nn.Embedding):
                    whole += weight.numel() * own * ROWS
            kept = (run.stack.attention, run.stack.cross_attention)
            scored = sum(isinstance(attention, Unprunable) for attention in kept)
            whole += scored * 2 * own * own * ROWS * 32  # of T5: both stacks have as many tokens
    for site in anatomy.sites:
        rows = sum(each.rows for each in site.producers if each.reads == "positions")
        whole += site.units * rows * 32 * 2 * 8  # 8 positions on either side, for all rows of a batch
    return whole


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_macs_of_a_pass_are_those_that_torch_counts(model_type: str, cut: str) -> None:
    with torch.no_grad():
        model = CUTS[cut](tiny_model(model_type))
    anatomy = anatomy_of(model)
    lengths = lengths_of(model)
    ours = macs_of_pass(anatomy, ROWS, lengths)
    assert ours > 0
    assert counted_by_torch(model, anatomy) == ours + of_no_site(model, anatomy)
    if len(set(lengths)) == 1:
        assert ours == ROWS * lengths[0] * Cost("macs", lengths[0]).dense(anatomy.sites)
