"""Servers put their own attention in place of the stock one: every block must call it, with its own heads."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny import MODEL_TYPES, tiny_batch
from transformers import AttentionInterface, AutoConfig, AutoModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from statprune.anatomy.lookup import anatomy_of
from tests.checkpoint.folders import Case

NOT_SERVED = ("gpt_neo", "deberta-v2", "bart", "whisper", "t5")
"""Stock base models without `_supports_attention_backend`."""
ONE_STACK = tuple(name for name in MODEL_TYPES if name not in NOT_SERVED)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_per_layer_class_takes_another_attention_where_the_stock_one_does(
    model_type: str, uneven: Callable[[str], Case]
) -> None:
    config = AutoConfig.from_pretrained(uneven(model_type).path)
    assert "AutoModel" in config.auto_map
    with torch.device("meta"):
        model = AutoModel.from_config(config)
    assert type(model)._supports_attention_backend is (model_type not in NOT_SERVED)


@pytest.mark.parametrize("model_type", ONE_STACK)
def test_every_block_calls_it_with_its_own_heads(model_type: str, uneven: Callable[[str], Case]) -> None:
    calls: list[tuple[int, int, int]] = []

    def counting(module: Any, query: Any, key: Any, value: Any, mask: Any, **rest: Any) -> Any:
        calls.append((query.shape[1], key.shape[1], query.shape[3]))
        rest.pop("softcap", None)
        return sdpa_attention_forward(module, query, key, value, mask, **rest)

    case = uneven(model_type)
    AttentionInterface.register("counting", counting)
    config = AutoConfig.from_pretrained(case.path)
    config._attn_implementation = "counting"
    model = AutoModel.from_config(config).eval()
    with torch.no_grad():
        model(**tiny_batch(case.model))
    sites = [site for site in anatomy_of(case.model).sites if site.kind == "attention"]
    assert calls == [(site.units * site.group, site.units, 8) for site in sites]
    assert len({call[0] for call in calls}) > 1
