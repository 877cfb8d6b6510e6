"""Generation with a cache equals generation without, also where blocks have different head counts."""

import pytest
import torch
from folders import Case
from tiny import tiny_batch, tiny_model, uneven_cut
from transformers import DynamicCache, PreTrainedModel, StaticCache

from statprune.anatomy.lookup import anatomy_of
from statprune.checkpoint.load import load
from statprune.checkpoint.widths import adopt

DECODERS = ["llama", "mistral", "qwen2", "qwen3", "opt", "gpt2"]


def generate(model: PreTrainedModel, **options: object) -> torch.Tensor:
    return model.generate(**tiny_batch(model), max_new_tokens=8, min_new_tokens=8, do_sample=False, **options)


def assert_caches_agree(model: PreTrainedModel) -> None:
    expected = generate(model, use_cache=False)
    assert torch.equal(generate(model), expected)
    assert torch.equal(generate(model, past_key_values=DynamicCache(config=model.config)), expected)
    cache = StaticCache(config=model.config, max_cache_len=32)
    assert torch.equal(generate(model, past_key_values=cache), expected)
    assert torch.equal(generate(model, cache_implementation="static"), expected)


@pytest.mark.parametrize("model_type", DECODERS)
def test_a_loaded_model_generates_with_any_cache(model_type: str, cases: list[Case]) -> None:
    for case in cases:
        if case.model.config.model_type == model_type and case.opener == "ForCausalLM":
            assert_caches_agree(load(case.path).model)


@pytest.mark.parametrize("model_type", DECODERS)
def test_an_adopted_model_generates_with_any_cache(model_type: str) -> None:
    model = uneven_cut(tiny_model(model_type))
    expected = generate(model, use_cache=False)
    adopt(model, anatomy_of(model))
    assert torch.equal(generate(model, use_cache=False), expected)
    assert_caches_agree(model)
