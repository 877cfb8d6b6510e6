"""Carriers in the refit: what they gain, when they are left alone, and that hooks are gone afterwards."""

from functools import partial

import pytest
import torch
from torch import Tensor
from transformers import BertConfig, BertModel

import statprune
from statprune.anatomy.lookup import anatomy_of
from statprune.anatomy.producers import module_at
from statprune.budget.plan import fit
from statprune.engine import carriers
from statprune.engine.refit import adapt, narrow, refit
from statprune.engine.trace import Trace
from statprune.surgery.linear import weight_of
from tests.tiny import tiny_batch, tiny_model

PLAN = {"blocks.1.attention": 1, "blocks.1.feed_forward": 16}


def many(model, rows: int = 200) -> list[dict[str, Tensor]]:
    return [tiny_batch(model, rows=rows, length=16, seed=seed) for seed in (1, 2)]


@torch.no_grad()
def error(family: str, *, carry: bool, batches=None) -> float:
    dense = tiny_model(family)
    anatomy = anatomy_of(model := tiny_model(family))
    steps = (adapt, partial(narrow, carry=carry))
    refit(model, anatomy, batches or many(dense), fit(PLAN, anatomy.sites), Trace(), steps=steps)
    test = tiny_batch(dense, rows=60, length=16, seed=77)
    return float((model(**test).logits - dense(**test).logits).norm())


@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2", "bert"])
def test_they_bring_the_outputs_nearer_on_samples_not_seen(family: str) -> None:
    assert error(family, carry=True) < 0.99 * error(family, carry=False)


def test_few_tokens_leave_them_alone() -> None:
    few = many(tiny_model("llama"), rows=8)
    assert error("llama", carry=True, batches=few) == error("llama", carry=False, batches=few)


def test_no_more_is_noted_than_fits(monkeypatch) -> None:
    model = tiny_model("llama")
    site, block = anatomy_of(model).sites[1], anatomy_of(model).blocks[0]
    assert carriers.worthwhile(block, site, 10_000)
    monkeypatch.setattr(carriers, "MOST", 2 * site.units * 2000)
    assert not carriers.worthwhile(block, site, 10_000)


@pytest.mark.parametrize(
    ("width", "neurons", "kinds"),
    [(768, 3072, {"attention", "feed_forward"}), (1024, 4096, {"feed_forward"}), (1280, 5120, set())],
    ids=["base", "large", "larger"],
)
def test_up_to_which_size_berts_have_carriers(width: int, neurons: int, kinds: set[str]) -> None:
    """With as many tokens as they need, and within six gigabytes."""
    config = BertConfig(
        hidden_size=width,
        num_attention_heads=width // 64,
        intermediate_size=neurons,
        num_hidden_layers=1,
        vocab_size=64,
    )
    with torch.device("meta"):
        anatomy = anatomy_of(BertModel(config))
    block, tokens = anatomy.blocks[0], carriers.ENOUGH * width
    found = {site.kind for site in anatomy.sites if carriers.worthwhile(block, site, tokens)}
    assert found == kinds
    assert all(carriers.noted_bytes(block, site, tokens) < 6e9 for site in anatomy.sites)


def test_another_attention_kernel_keeps_its_values() -> None:
    model = tiny_model("llama")
    model.set_attn_implementation("eager")
    before = weight_of(module_at(anatomy_of(model).blocks[1], "self_attn.v_proj")).clone()
    made = statprune.compress(model, data=many(model), plan={"blocks.1.attention": 1}).model
    block = anatomy_of(made).blocks[1]
    kept = weight_of(module_at(block, "self_attn.v_proj"))
    assert any(torch.equal(kept, part) for part in before.split(len(kept)))


def test_nothing_is_left_behind() -> None:
    model = tiny_model("llama")
    made = statprune.compress(model, data=many(model), plan=PLAN).model
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in made.modules())
