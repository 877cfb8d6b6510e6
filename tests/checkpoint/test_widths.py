"""How widths are written: stock where a config can say them, per layer where not."""

import ast
from typing import Any

import pytest
import torch
from folders import outputs, write
from tiny import MODEL_TYPES, random_cut, tiny_batch, tiny_model, uneven_cut, uniform_cut
from transformers import MistralForCausalLM, PreTrainedModel

from statprune.anatomy.lookup import anatomy_of
from statprune.checkpoint.classes import stock_names
from statprune.checkpoint.load import load
from statprune.checkpoint.widths import adopt, encode

WITH_HEAD_DIM = (
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "mixtral",
    "qwen2_moe",
    "qwen3_moe",
    "gemma2",
    "gemma3_text",
    "phi3",
    "vit",
    "t5",
)
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "high_freq_factor": 4.0,
    "low_freq_factor": 1.0,
    "original_max_position_embeddings": 32,
}


def three_groups_of_four(**config: Any) -> PreTrainedModel:
    """A llama left with 6 heads, which do not divide its hidden size."""
    model = tiny_model("llama", num_attention_heads=8, num_key_value_heads=4, head_dim=8, **config)
    return random_cut(model, {f"blocks.{index}.attention": [0, 1, 3] for index in range(3)})


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_neurons_that_are_the_same_everywhere_need_no_code(model_type: str) -> None:
    model = uniform_cut(tiny_model(model_type))
    encoding = encode(model, anatomy_of(model))
    assert encoding.stock
    assert encoding.modelling is None
    assert encoding.architecture == type(model).__name__
    assert 24 in {
        encoding.config.to_dict().get(name)
        for name in (
            "intermediate_size",
            "n_inner",
            "ffn_dim",
            "hidden_dim",
            "d_ff",
            "decoder_ffn_dim",
            "moe_intermediate_size",
        )
    }


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_fewer_heads_need_code_where_the_config_has_no_head_size(model_type: str) -> None:
    model = uniform_cut(tiny_model(model_type), heads=True)
    encoding = encode(model, anatomy_of(model))
    assert encoding.stock is (model_type in WITH_HEAD_DIM)
    if model.config.is_encoder_decoder:
        own = encoding.config.to_dict().get("block_widths", {})
        assert [len(each) for each in own.values()] == ([] if encoding.stock else [3, 3])
        return
    assert encoding.config.head_dim == 8
    if not encoding.stock:
        # Neurons agree, so the global config says them.
        overrides = encoding.config.to_dict()["per_layer_config"]
        assert len(overrides) == 3
        assert all(len(values) == 1 for values in overrides.values())
        assert "computes the size of a head" in encoding.reason


def test_only_what_differs_is_written_per_layer() -> None:
    model = random_cut(tiny_model("llama"), {"blocks.1.feed_forward": range(7)})
    encoding = encode(model, anatomy_of(model))
    assert encoding.config.to_dict()["per_layer_config"] == {"1": {"intermediate_size": 7}}
    assert encoding.config.auto_map == {
        "AutoModel": "modeling_statprune.StatpruneLlamaModel",
        "AutoModelForCausalLM": "modeling_statprune.StatpruneLlamaForCausalLM",
    }
    assert encoding.reason == "blocks differ in intermediate_size."


@pytest.mark.parametrize("config", [{}, {"rope_parameters": LLAMA3}, {"tie_word_embeddings": True}])
def test_a_llama_whose_heads_do_not_divide_is_exactly_a_mistral(config: Any, tmp_path: Any) -> None:
    model = three_groups_of_four(**config)
    expected = outputs(model)["logits"]
    saved = write(model, tmp_path / "out", verify_batch=tiny_batch(model))
    assert (saved.stock, saved.reencoded_as) == (True, "mistral")
    loaded = load(saved.path).model
    assert type(loaded) is MistralForCausalLM
    assert loaded.config.sliding_window is None
    assert loaded.config.rope_parameters == model.config.rope_parameters
    torch.testing.assert_close(outputs(loaded)["logits"], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("bias", ["attention_bias", "mlp_bias"])
def test_a_llama_with_biases_is_no_mistral(bias: str) -> None:
    model = three_groups_of_four(**{bias: True})
    encoding = encode(model, anatomy_of(model))
    assert (encoding.stock, encoding.reencoded_as) == (False, None)
    assert "no other model type has the same weights" in encoding.reason


@pytest.mark.parametrize("task", ["Model", "ForSequenceClassification", "ForTokenClassification"])
def test_the_head_class_follows(task: str) -> None:
    model = three_groups_of_four(head=f"Llama{task}")
    encoding = encode(model, anatomy_of(model))
    assert encoding.architecture == f"Mistral{task}"
    assert encoding.config.architectures == [encoding.architecture]


def test_in_memory_a_reencoded_llama_stays_a_llama(tmp_path: Any) -> None:
    model = three_groups_of_four()
    expected = outputs(model)["logits"]
    adopt(model, anatomy_of(model))
    assert type(model).__name__ == "StatpruneLlamaForCausalLM"
    assert torch.equal(outputs(model)["logits"], expected)
    assert write(model, tmp_path / "out", verify_batch=tiny_batch(model)).reencoded_as == "mistral"


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_the_modelling_file_is_short_and_needs_torch_and_transformers_alone(model_type: str) -> None:
    model = uneven_cut(tiny_model(model_type))
    source = encode(model, anatomy_of(model)).modelling
    assert source is not None
    assert len(source[: source.index("SHAPES = ")].splitlines()) < 190
    tree = ast.parse(source)
    imported = {node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported == {"functools", "typing", "torch", "transformers"}
    names = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    saved = {type(model).__name__, stock_names(model_type)["AutoModel"]}
    helpers = {"PerLayerWidths", "OwnConfig", "NarrowValues", "NarrowReader"}
    assert names == helpers | {f"Statprune{name}" for name in saved}


def test_code_of_others_named_in_the_config_is_not_promised() -> None:
    model = uniform_cut(tiny_model("llama"))
    model.config.auto_map = {"AutoModelForCausalLM": "modeling_other.Other"}
    assert not hasattr(encode(model, anatomy_of(model)).config, "auto_map")


def test_encoding_leaves_the_config_in_memory_alone() -> None:
    model = uneven_cut(tiny_model("gpt2"))
    before = model.config.to_dict()
    encode(model, anatomy_of(model))
    assert model.config.to_dict() == before
