"""Half-way through a block and behind the last one: against hooks on the whole model, and its own outputs."""

from typing import Any

import pytest
import torch
from torch import Tensor

from statprune.anatomy.lookup import anatomy_of
from statprune.anatomy.parts import BLOCK
from statprune.anatomy.producers import module_at
from statprune.calibration.batches import inputs_of
from statprune.calibration.routing import hidden_of
from statprune.calibration.stream import Stream, advance, before_first_block, behind_last_block, until
from tests.tiny import MODEL_TYPES, tiny_batch, tiny_model

HEADS = [
    *((model_type, None) for model_type in MODEL_TYPES),
    ("llama", "LlamaModel"),
    ("llama", "LlamaForSequenceClassification"),
    ("bert", "BertModel"),
    ("bert", "BertForSequenceClassification"),
    ("bert", "BertForQuestionAnswering"),
    ("distilbert", "DistilBertForTokenClassification"),
]


def batches_of(model: Any) -> list[dict[str, Tensor]]:
    batches = [tiny_batch(model, rows=rows, length=10, seed=rows) for rows in (3, 2)]
    batches[0]["attention_mask"][1, 6:] = 0
    return batches


def walked(model: Any, batches: list[dict[str, Tensor]], blocks: int) -> Stream:
    stream = before_first_block(model, anatomy_of(model), batches)
    for index in range(blocks):
        advance(stream, anatomy_of(model).blocks[index], index)
    return stream


@torch.no_grad()
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_half_way_is_what_the_whole_model_reads_and_returns_there(model_type: str) -> None:
    model = tiny_model(model_type)
    batches, anatomy = batches_of(model), anatomy_of(model)
    number = anatomy.runs[-1].start + 1
    stream, block = walked(model, batches, number), anatomy.blocks[number]
    sites = anatomy.sites_of_block(number)
    forward = sites[-1]
    residuals = [path for path in forward.residual if path != BLOCK]
    paths = {sites[0].producers[0].path, sites[0].consumer, *residuals, forward.consumer}
    reads: dict[str, list[Tensor]] = {path: [] for path in paths}
    returns: list[Tensor] = []
    for batch, real in zip(batches, stream.real, strict=True):
        hooks = [
            module_at(block, path).register_forward_pre_hook(
                lambda _, inputs, real=real, path=path: reads[path].append(
                    inputs[0].reshape(*real.shape, -1)[real]
                )
            )
            for path in paths
        ]
        hooks.append(
            module_at(block, forward.consumer).register_forward_hook(
                lambda _, __, out, real=real: returns.append(out.reshape(*real.shape, -1)[real])
            )
        )
        model(**inputs_of(model, batch))
        for hook in hooks:
            hook.remove()

    before = list(stream.hidden)
    for path in paths:
        seen = list(until(stream, block, number, path))
        torch.testing.assert_close([hidden_of(each[path]) for each in seen], reads[path])
        assert [set(each) for each in seen] == [{path}] * 2
    both = list(until(stream, block, number, forward.consumer, residuals))
    for path in (*residuals, forward.consumer):
        torch.testing.assert_close([hidden_of(each[path]) for each in both], reads[path])
    assert all(one is two for one, two in zip(stream.hidden, before, strict=True)), "it stays where it is"
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in block.modules())

    written: list[Tensor] = []
    advance(stream, block, number, writers={forward.consumer: written.append})
    torch.testing.assert_close(written, returns)


def test_nothing_behind_the_place_runs() -> None:
    model = tiny_model("llama")
    stream, block = walked(model, batches_of(model), 0), anatomy_of(model).blocks[0]
    ran: list[int] = []
    block.mlp.register_forward_hook(lambda *_: ran.append(1))
    assert len(list(until(stream, block, 0, "self_attn.o_proj"))) == 2
    assert ran == []


def test_a_place_that_the_block_never_gets_to() -> None:
    model = tiny_model("llama")
    stream, block = walked(model, batches_of(model), 0), anatomy_of(model).blocks[0]
    block.unused = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"blocks\.0 does not run the module at unused"):
        list(until(stream, block, 0, "unused"))


@torch.no_grad()
@pytest.mark.parametrize(("model_type", "head"), HEADS)
def test_behind_the_last_block_is_what_the_model_returns(model_type: str, head: str | None) -> None:
    """With the last hidden states of the blocks, and with none of the blocks run."""
    model = tiny_model(model_type, head=head)
    batches, blocks = batches_of(model), anatomy_of(model).blocks
    stream = walked(model, batches, len(blocks))
    wanted = [model(**inputs_of(model, batch), return_dict=True) for batch in batches]
    own = blocks[1].forward
    blocks[1].forward = lambda *_, **__: pytest.fail("a block ran")
    replaced = blocks[1].forward
    for hidden, batch, whole in zip(stream.hidden, batches, wanted, strict=True):
        found = behind_last_block(model, anatomy_of(model), hidden, batch)
        for name, value in whole.items():
            if isinstance(value, Tensor) and not name.startswith("encoder"):  # that has not run
                torch.testing.assert_close(found[name], value)
        changed = behind_last_block(model, anatomy_of(model), hidden + 1.5 * hidden.roll(1, -1), batch)
        first = next(name for name, value in whole.items() if isinstance(value, Tensor))
        assert (changed[first] - whole[first]).abs().max() > 1e-3
    assert blocks[1].forward is replaced, "what someone else has put there comes back"
    assert "forward" not in vars(blocks[0])
    blocks[1].forward = own
