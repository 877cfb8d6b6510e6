"""Experts of a block, for every family that has them: routing, cut, correction, folders."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from statprune.anatomy.lookup import anatomy_of
from statprune.anatomy.producers import module_at
from statprune.anatomy.sites import Site
from statprune.budget.plan import fit
from statprune.calibration.routing import Routed
from statprune.calibration.stream import before_first_block, until
from statprune.checkpoint.load import load
from statprune.checkpoint.save import save
from statprune.engine.experts import of_expert
from statprune.engine.refit import refit
from statprune.engine.stat import stat
from statprune.engine.trace import Trace
from statprune.errors import ModelError
from statprune.linalg.gram import Gram
from statprune.surgery.cut import cut, own_columns
from statprune.surgery.experts import adapt_producers
from tests.tiny import tiny_batch, tiny_model, uneven_cut, uniform_cut

FAMILIES = ("mixtral", "qwen2_moe", "qwen3_moe")
MIXED = ("qwen2_moe", "qwen3_moe")
METHODS = ("stat", "refit")


def batches_of(model: PreTrainedModel) -> list[dict[str, Tensor]]:
    """About 560 real tokens, 280 an expert; the second batch has padding."""
    batches = [tiny_batch(model, rows=24, length=12, seed=seed) for seed in (1, 2)]
    batches[1]["attention_mask"][3:, 10:] = 0
    return batches


def narrow(model: PreTrainedModel, method: str, widths: dict[str, int], batches: Any = None) -> Trace:
    anatomy, trace = anatomy_of(model), Trace()
    plan, data = fit(widths, anatomy.sites), batches_of(model) if batches is None else batches
    if method == "stat":
        stat(model, anatomy, data, plan, Gram, trace)
    else:
        refit(model, anatomy, data, plan, trace)
    return trace


def site_of(model: PreTrainedModel, block: int = 0) -> Site:
    return next(site for site in anatomy_of(model).sites_of_block(block) if site.experts)


@pytest.mark.parametrize("family", FAMILIES)
def test_experts_adapt_to_what_they_read(family: str) -> None:
    """What was made of x (1 + M) is made of x."""
    model = tiny_model(family)
    experts = module_at(anatomy_of(model).blocks[0], site_of(model).consumer)
    M = 0.1 * torch.randn(32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    before = experts.gate_up_proj.detach().clone()
    adapt_producers(experts, M)
    x = torch.randn(5, 32, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(x @ experts.gate_up_proj.detach().mT, (x + x @ M.float()) @ before.mT)


@pytest.mark.parametrize("family", FAMILIES)
def test_one_choice_of_units_may_be_that_of_all_experts(family: str) -> None:
    found = []
    for kept in (torch.tensor([1, 3, 7, 30]), torch.tensor([[1, 3, 7, 30]] * 4)):
        model = tiny_model(family)
        site, block = site_of(model), anatomy_of(model).blocks[0]
        weight = own_columns(block, site, kept)
        cut(block, site, kept, weight)
        found += [weight, module_at(block, site.consumer).gate_up_proj.detach()]
    torch.testing.assert_close(found[:2], found[2:], rtol=0, atol=0)


@torch.no_grad()
def read(model: PreTrainedModel, batches: list[dict[str, Tensor]]) -> list[Routed]:
    """What the experts of the first block read of real tokens."""
    anatomy, site = anatomy_of(model), site_of(model)
    stream = before_first_block(model, anatomy, batches)
    return [seen[site.consumer] for seen in until(stream, anatomy.blocks[0], 0, site.consumer)]


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_what_experts_read_makes_up_what_the_module_returns(family: str) -> None:
    model = tiny_model(family).double()
    batch = batches_of(model)[1]
    routed = read(model, [batch])[0]
    assert len(routed.hidden) == int(batch["attention_mask"].sum())
    experts = module_at(anatomy_of(model).blocks[0], site_of(model).consumer)
    total = torch.zeros_like(routed.hidden)
    for expert in range(4):
        tokens, Z = of_expert(experts, expert, routed)
        total.index_add_(0, tokens, Z @ experts.down_proj[expert].T)
    torch.testing.assert_close(total, experts(*routed))


@torch.no_grad()
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", FAMILIES)
def test_correction_helps(family: str, method: str) -> None:
    """With the same neurons kept, the block's experts are nearer to the dense ones than uncorrected."""
    dense = tiny_model(family).double()
    thin, plain = deepcopy(dense), deepcopy(dense)
    site = site_of(dense)
    trace = narrow(thin, method, {site.name: 16})
    kept = torch.tensor(next(each.kept for each in trace.sites if each.site == site.name))
    assert kept.shape == (4, 16)
    assert len({tuple(row.tolist()) for row in kept}) > 1, "every expert chooses for itself"
    block = anatomy_of(plain).blocks[0]
    cut(block, site, kept, own_columns(block, site, kept))
    routed = read(dense, batches_of(dense))[0]
    returned = [
        module_at(anatomy_of(model).blocks[0], site.consumer)(*routed) for model in (dense, thin, plain)
    ]
    error, uncorrected = ((returned[0] - each).norm() for each in returned[1:])
    assert error < 0.9 * uncorrected
    assert not trace.warnings


@torch.no_grad()
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", FAMILIES)
def test_padding_does_not_count(family: str, method: str) -> None:
    made = []
    for filler in (5, 9):
        model = tiny_model(family).double()
        batches = batches_of(model)
        batches[1]["input_ids"][3:, 10:] = filler
        narrow(model, method, {site_of(model).name: 16}, batches)
        made.append(module_at(anatomy_of(model).blocks[0], site_of(model).consumer).state_dict())
    for name, value in made[0].items():
        torch.testing.assert_close(value, made[1][name])


@torch.no_grad()
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", FAMILIES)
def test_an_expert_without_tokens_keeps_its_largest_neurons(family: str, method: str) -> None:
    model = tiny_model(family, num_experts_per_tok=1).double()
    block, site = anatomy_of(model).blocks[0], site_of(model)
    # One of two opposite logits is always larger than zero.
    block.mlp.gate.weight[2] = 0.0
    block.mlp.gate.weight[3] = -block.mlp.gate.weight[0]
    dense = deepcopy(module_at(block, site.consumer))
    trace = narrow(model, method, {site.name: 16})
    assert any(f"{site.name}: of 4 experts 2 got" in warning for warning in trace.warnings)
    gate, up = dense.gate_up_proj[2].norm(dim=1).chunk(2)
    largest = (gate * up * dense.down_proj[2].norm(dim=0)).topk(16).indices.sort().values
    experts = module_at(block, site.consumer)
    torch.testing.assert_close(experts.down_proj[2], dense.down_proj[2][:, largest])


@torch.no_grad()
@pytest.mark.parametrize("narrowed", [uniform_cut, uneven_cut])
@pytest.mark.parametrize("family", MIXED)
def test_blocks_with_and_without_experts_are_saved(
    family: str, narrowed: Callable[[PreTrainedModel], PreTrainedModel], tmp_path: Path
) -> None:
    model = tiny_model(family, mlp_only_layers=[1])
    parts = [site.part for site in anatomy_of(model).sites_of_block(1)]
    assert parts == ["attention", "feed_forward"]
    narrowed(model)
    batch = tiny_batch(model)
    saved = save(
        model,
        anatomy_of(model),
        tmp_path / "out",
        source=None,
        tokenizer=None,
        record={},
        verify_batch=batch,
    )
    assert saved.stock is (narrowed is uniform_cut)
    opened = AutoModelForCausalLM.from_pretrained(saved.path) if saved.stock else load(saved.path).model
    assert opened.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(value, opened.state_dict()[name]) for name, value in model.state_dict().items())
    largest = float(model(**batch).logits.abs().max())
    torch.testing.assert_close(
        opened(**batch).logits, model(**batch).logits, rtol=0, atol=1e-6 * max(1, largest)
    )
    generated = [
        opened.generate(**batch, max_new_tokens=4, do_sample=False, use_cache=cached)
        for cached in (True, False)
    ]
    assert torch.equal(*generated)


def test_quantised_experts_are_refused() -> None:
    model = tiny_model("mixtral")
    experts = model.model.layers[1].mlp.experts
    weight = experts.down_proj
    del experts.down_proj
    experts.down_proj = weight.detach().to(torch.int8)
    with pytest.raises(ModelError, match=r"blocks\.1: mlp\.experts holds its down_proj as a Tensor"):
        anatomy_of(model)


def test_float64_without_a_product_for_it_is_refused() -> None:
    model = tiny_model("mixtral").double()
    assert anatomy_of(model).sites
    model.config._experts_implementation = "grouped_mm"
    with pytest.raises(ModelError, match=r"blocks\.0: mlp\.experts is torch\.float64, .* grouped_mm"):
        anatomy_of(model)
