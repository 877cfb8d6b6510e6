"""Widths of rule stock open in stock transformers, and the folder says so, whatever the family."""

from pathlib import Path

import pytest
import torch
import transformers
from tiny import MODEL_TYPES, tiny_batch, tiny_model, uniform_cut
from transformers import LlamaConfig, LlamaForCausalLM

import statprune
from statprune.anatomy.lookup import anatomy_of
from statprune.checkpoint.classes import stock_class_of
from statprune.checkpoint.widths import adopt
from statprune.errors import InputError


def opens_as_stock(made: statprune.Result) -> bool:
    folder = made.folder
    assert folder is not None
    assert "# stock transformers" in folder.how_to_load
    assert not (folder.path / "modeling_statprune.py").exists()
    opener = folder.how_to_load.split(".")[0]
    _, report = getattr(transformers, opener).from_pretrained(folder.path, output_loading_info=True)
    return not (report["missing_keys"] or report["unexpected_keys"] or report["mismatched_keys"])


def test_a_llama_that_is_written_as_a_mistral_says_so(tmp_path: Path) -> None:
    model = tiny_model("llama", num_attention_heads=8, num_key_value_heads=8, head_dim=4)
    plan = {f"blocks.{index}.attention": 6 for index in range(3)}
    made = statprune.compress(model, data=[tiny_batch(model, rows=32)], plan=plan, out=tmp_path / "out")
    folder = made.folder
    assert folder is not None
    assert folder.reencoded_as == "mistral"
    assert "written as mistral, which has the same weights" in folder.how_to_load
    assert opens_as_stock(made)


def test_a_qwen2_with_fewer_heads_is_a_llama_with_biases() -> None:
    """What docs/serving.md says of servers whose Qwen2 takes no head size."""
    model = uniform_cut(tiny_model("qwen2"), heads=True)
    adopt(model, anatomy_of(model))
    assert type(model) is stock_class_of(type(model))
    values = {name: value for name, value in model.config.to_dict().items() if name != "model_type"}
    config = LlamaConfig(**{**values, "attention_bias": True, "num_attention_heads": 2})
    twin = LlamaForCausalLM(config).eval()
    state = dict(model.state_dict())
    for name in twin.state_dict():
        if name.endswith("o_proj.bias"):
            state[name] = torch.zeros(32)
    twin.load_state_dict(state)
    with torch.no_grad():
        batch = tiny_batch(model)
        assert torch.equal(twin(**batch).logits, model(**batch).logits)


@pytest.mark.parametrize("model_type", ["opt", "bert", "bart"])
def test_heads_that_are_gone_cannot_be_said_by_a_stock_config(model_type: str, tmp_path: Path) -> None:
    model = uniform_cut(tiny_model(model_type), heads=True)
    adopt(model, anatomy_of(model))
    options = {"keep": 0.95, "multiple": 4, "dry_run": True}
    data = [tiny_batch(model, rows=32)]
    with pytest.raises(InputError, match=r"\.0\.attention has lost heads before, and 3 .*or take uniform"):
        statprune.compress(model, data=data, widths="stock", **options)
    statprune.compress(model, data=data, widths="uniform", **options)


FROM_TEXT = tuple(name for name in MODEL_TYPES if name not in ("vit", "whisper", "t5"))
"""Families that run from the token ids of a text alone."""


@pytest.mark.audit
@pytest.mark.parametrize("model_type", FROM_TEXT)
def test_every_family_has_stock_widths(model_type: str, tmp_path: Path) -> None:
    model = tiny_model(model_type)
    options = {"keep": 0.75, "widths": "stock", "multiple": 4, "out": tmp_path / "out"}
    made = statprune.compress(model, data=[tiny_batch(model, rows=32)], **options)
    assert type(made.model) is stock_class_of(type(made.model))
    assert opens_as_stock(made)
