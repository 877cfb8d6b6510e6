"""Families beside Llama and its like, each as llama.cpp's own architecture, and what that cannot say."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from statprune.errors import ModelError
from statprune.export.gguf import export_gguf
from tests.export.gguf_models import IDS, logits_of, saved
from tests.export.llama_graph import LlamaGraph
from tests.export.test_gguf_models import LINEAR, LLAMA3, TIED, fewer_heads, whole
from tests.tiny import tiny_model, uneven_cut, uniform_cut

pytestmark = pytest.mark.usefixtures("alone")

Cut = Callable[[PreTrainedModel], PreTrainedModel]
NORMALISED = {"norm_topk_prob": True}
HALF = {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.5}}
SLIDES, FULL = "sliding_attention", "full_attention"
MIXED = {"layer_types": [SLIDES, FULL, SLIDES]}
ROPES = {SLIDES: {"rope_type": "default", "rope_theta": 30.0}, FULL: LINEAR}
TANH = {"hidden_act": "gelu_new"}
SEQUENTIAL = {"use_parallel_residual": False, "attention_bias": False}

FAMILIES: list[tuple[str, Cut, dict[str, Any], str]] = [
    ("mixtral", whole, {"num_experts_per_tok": 3}, "llama"),
    ("mixtral", fewer_heads, {**TIED, "rope_parameters": LLAMA3}, "llama"),
    ("qwen3_moe", whole, NORMALISED, "qwen3moe"),
    ("qwen3_moe", fewer_heads, {**NORMALISED, **TIED}, "qwen3moe"),
    ("qwen2_moe", whole, TIED, "qwen2moe"),
    ("qwen2_moe", uniform_cut, {"rope_parameters": LINEAR}, "qwen2moe"),
    ("gemma2", whole, {}, "gemma2"),
    ("gemma2", fewer_heads, {"query_pre_attn_scalar": 24, "layer_types": [FULL, FULL, SLIDES]}, "gemma2"),
    ("gemma2", fewer_heads, {"query_pre_attn_scalar": 24, "num_hidden_layers": 46}, "gemma2"),
    ("gemma3_text", whole, {}, "gemma3"),
    ("gemma3_text", fewer_heads, {**MIXED, "query_pre_attn_scalar": 24, "rope_parameters": ROPES}, "gemma3"),
    (
        "gemma3_text",
        uniform_cut,
        {"layer_types": [FULL] * 3, "final_logit_softcapping": 5.0, "tie_word_embeddings": False},
        "gemma3",
    ),
    ("phi3", whole, HALF, "phi3"),
    ("phi3", uniform_cut, TIED, "phi3"),
    ("phi3", fewer_heads, {}, "deci"),
    ("phi3", uneven_cut, {}, "deci"),
    ("gpt2", whole, {"tie_word_embeddings": False}, "gpt2"),
    ("gpt2", uniform_cut, {}, "gpt2"),
    ("gpt_neox", whole, TANH, "gptneox"),
    ("gpt_neox", uniform_cut, {**TANH, **TIED, **SEQUENTIAL}, "gptneox"),
]


@pytest.mark.parametrize(("model_type", "cut", "config", "architecture"), FAMILIES)
def test_a_file_computes_what_the_model_computes(
    model_type: str, cut: Cut, config: dict[str, Any], architecture: str, tmp_path: Path
) -> None:
    model = cut(tiny_model(model_type, **deepcopy(config)))
    folder = saved(tmp_path / "model", model)
    written = export_gguf(folder, tmp_path / "model.gguf", dtype="f32", tokenizer=False)
    graph, expected = LlamaGraph(tmp_path / "model.gguf"), logits_of(model)
    assert graph.architecture == written.architecture == architecture
    # Norms and scales of Gemma are float32 even in a float64 model.
    largest = expected.abs().max().item()
    torch.testing.assert_close(graph.logits(IDS), expected, rtol=0, atol=1e-5 * max(1.0, largest))
    assert not any("tanh form" in note for note in written.notes)


def test_routers_and_positions_stay_f32(tmp_path: Path) -> None:
    for model_type, names in (
        ("qwen2_moe", {"blk.1.ffn_gate_inp.weight", "blk.1.ffn_gate_inp_shexp.weight"}),
        ("gpt2", {"position_embd.weight"}),
    ):
        folder = saved(tmp_path / model_type, tiny_model(model_type))
        path = tmp_path / f"{model_type}.gguf"
        export_gguf(folder, path, dtype="q8_0", tokenizer=False)
        types = LlamaGraph(path).types
        assert {types[name] for name in names} == {"F32"}
        assert types["token_embd.weight"] == "Q8_0"


def test_a_gelu_that_llama_cpp_approximates_is_told(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", tiny_model("gpt_neox"))
    written = export_gguf(folder, tmp_path / "model.gguf", tokenizer=False)
    assert any("hidden_act is 'gelu'" in note and "tanh form" in note for note in written.notes)


LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 500.0,
    "short_factor": [1.0] * 4,
    "long_factor": [2.0] * 4,
    "original_max_position_embeddings": 16,
    "partial_rotary_factor": 1.0,
}
UNEVEN = "blocks differ in .*reads one width.*--widths uniform"

REFUSED: list[tuple[str, Cut, dict[str, Any], str]] = [
    ("mixtral", uneven_cut, {}, "'llama' reads one width.*--widths uniform` gives"),
    ("mixtral", whole, {"sliding_window": 16}, "window of 16 tokens.*see all 64"),
    ("qwen3_moe", uneven_cut, NORMALISED, UNEVEN),
    ("qwen3_moe", whole, {"norm_topk_prob": False}, "norm_topk_prob is False; .*'qwen3moe' .* it were True"),
    ("qwen3_moe", whole, {**NORMALISED, "mlp_only_layers": [1]}, "block 1 has an ordinary perceptron"),
    ("qwen3_moe", whole, {**NORMALISED, "attention_bias": True}, "q_proj.bias: .*'qwen3moe' has no place"),
    ("qwen2_moe", whole, NORMALISED, "norm_topk_prob is True; .*'qwen2moe' .* it were False"),
    ("qwen2_moe", whole, {"decoder_sparse_step": 2}, "block 0 has an ordinary perceptron"),
    ("qwen2_moe", fewer_heads, {}, "2 heads of 8 columns do not fill .* 32.*'qwen2moe'.*--floor attention=2"),
    ("qwen2_moe", uneven_cut, {}, "neurons of the shared expert.*'qwen2moe'.*uniform --floor attention=2"),
    ("gemma2", uneven_cut, {}, UNEVEN),
    ("gemma2", whole, {"tie_word_embeddings": False}, "'gemma2' can say it only with tied embeddings"),
    ("gemma2", whole, {"attention_bias": True}, "q_proj.bias: llama.cpp's 'gemma2' has no place"),
    ("gemma2", whole, {"attn_logit_softcapping": None}, "attn_logit_softcapping is None; .* needs a number"),
    ("gemma2", whole, {"final_logit_softcapping": None}, "final_logit_softcapping is None"),
    (
        "gemma2",
        whole,
        {"layer_types": [FULL] * 3},
        "no block has a sliding window.*aborts.*sliding_window 64",
    ),
    ("gemma2", whole, {"hidden_activation": "silu"}, "hidden_activation is 'silu'; .* computes gelu"),
    ("gemma3_text", uneven_cut, {}, UNEVEN),
    ("gemma3_text", whole, {"use_bidirectional_attention": True}, "use_bidirectional_attention is True"),
    ("gemma3_text", whole, {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping is 50.0; .* were None"),
    (
        "gemma3_text",
        whole,
        {"rope_parameters": {**ROPES, SLIDES: LINEAR}},
        "within its sliding window.*linear",
    ),
    (
        "phi3",
        whole,
        {"rope_parameters": LONGROPE},
        "'longrope'.*'phi3' they can be scaled by default, linear",
    ),
    ("phi3", whole, {"sliding_window": 16}, "window of 16 tokens"),
    ("phi3", uneven_cut, HALF, "rotates 0.5 of each head .*'deci' rotates all"),
    ("gpt2", uneven_cut, {}, "'gpt2' reads one width.*--floor attention=4"),
    ("gpt2", fewer_heads, {}, "3 heads of 8 columns do not fill .* 32.*'gpt2'.*--floor attention=4"),
    ("gpt2", whole, {"scale_attn_by_inverse_layer_idx": True}, "inverse_layer_idx is True; .* were False"),
    ("gpt2", whole, {"scale_attn_weights": False}, "scale_attn_weights is False"),
    ("gpt2", whole, {"activation_function": "relu"}, "activation_function is 'relu'; .* computes gelu"),
    ("gpt_neox", fewer_heads, {}, "3 heads of 8 columns do not fill .* 32.*'gptneox'.*--floor attention=4"),
    ("gpt_neox", whole, {"rope_parameters": LLAMA3}, "'llama3'.*'gptneox'"),
    ("qwen2", whole, {"rope_parameters": LLAMA3}, "'llama3'.*'qwen2' they can be scaled by default, linear"),
]


@pytest.mark.parametrize(("model_type", "cut", "config", "told"), REFUSED)
def test_what_llama_cpp_cannot_say_is_refused(
    model_type: str, cut: Cut, config: dict[str, Any], told: str, tmp_path: Path
) -> None:
    folder = saved(tmp_path / "model", cut(tiny_model(model_type, **deepcopy(config))))
    with pytest.raises(ModelError, match=told):
        export_gguf(folder, tmp_path / "model.gguf", tokenizer=False)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
