"""What a GGUF file says is what the model computes, by an independent reading of llama.cpp's graphs."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from statprune.export.gguf import export_gguf
from tests.export.gguf_models import IDS, logits_of, saved, saved_with
from tests.export.llama_graph import LlamaGraph
from tests.tiny import narrow_values, tiny_model, uneven_cut, uniform_cut

pytestmark = pytest.mark.usefixtures("alone")

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
LINEAR = {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0}
TIED = {"tie_word_embeddings": True}


def fewer_heads(model: PreTrainedModel) -> PreTrainedModel:
    return uniform_cut(model, heads=True)


def whole(model: PreTrainedModel) -> PreTrainedModel:
    return model


CASES: list[tuple[str, Callable[[PreTrainedModel], PreTrainedModel], dict[str, Any], str]] = [
    ("llama", whole, {}, "llama"),
    ("llama", fewer_heads, TIED, "llama"),
    ("llama", narrow_values, {"attention_bias": True, "mlp_bias": True}, "deci"),
    ("llama", uneven_cut, {"rope_parameters": LLAMA3}, "deci"),
    ("llama", uniform_cut, {"rope_parameters": LINEAR, "attention_bias": True}, "llama"),
    ("mistral", uniform_cut, {}, "llama"),
    ("mistral", uneven_cut, {"sliding_window": 64}, "deci"),
    ("qwen2", uniform_cut, {}, "qwen2"),
    ("qwen2", fewer_heads, {}, "deci"),
    ("qwen2", uneven_cut, TIED, "deci"),
    ("qwen3", fewer_heads, {}, "qwen3"),
    ("qwen3", uneven_cut, {**TIED, "rope_parameters": LINEAR}, "openelm"),
]


@pytest.mark.parametrize(("model_type", "cut", "config", "architecture"), CASES)
def test_a_file_computes_what_the_model_computes(
    model_type: str,
    cut: Callable[[PreTrainedModel], PreTrainedModel],
    config: dict[str, Any],
    architecture: str,
    tmp_path: Path,
) -> None:
    model = cut(tiny_model(model_type, **config))
    written = export_gguf(
        saved(tmp_path / "model", model), tmp_path / "model.gguf", dtype="f32", tokenizer=False
    )
    graph = LlamaGraph(tmp_path / "model.gguf")
    assert graph.architecture == written.architecture == architecture
    torch.testing.assert_close(graph.logits(IDS), logits_of(model), rtol=0, atol=1e-5)
    assert written.bytes == (tmp_path / "model.gguf").stat().st_size
    assert (written.runtime, written.difference) == (None, None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "model.gguf"]


EMPTY: list[tuple[str, dict[str, Any], Sequence[tuple[int, int, int]], tuple[int, ...], tuple[int, ...]]] = [
    ("llama", {}, [(4, 2, 40), (0, 0, 40), (4, 2, 0)], (4, 0, 4), (40, 40, 1)),
    ("llama", {}, [(0, 0, 40), (4, 2, 9), (0, 0, 0)], (1, 4, 0), (40, 9, 1)),
    # deci would lose the output bias of an attention without heads, and with it the block's constant part.
    ("llama", {"attention_bias": True}, [(4, 2, 40), (0, 0, 40), (2, 1, 40)], (4, 1, 2), (40, 40, 40)),
    ("qwen2", {}, [(0, 0, 40), (4, 2, 40), (0, 0, 40)], (1, 4, 0), (40, 40, 40)),
    ("qwen3", TIED, [(4, 2, 0), (0, 0, 40), (4, 2, 40)], (4, 1, 4), (1, 40, 40)),
]


@pytest.mark.parametrize(("model_type", "config", "widths", "heads", "neurons"), EMPTY)
def test_empty_blocks_are_written_so_that_llama_cpp_does_not_lose_more(
    model_type: str,
    config: dict[str, Any],
    widths: Sequence[tuple[int, int, int]],
    heads: tuple[int, ...],
    neurons: tuple[int, ...],
    tmp_path: Path,
) -> None:
    model = saved_with(tmp_path / "model", model_type, widths, **config)
    written = export_gguf(tmp_path / "model", tmp_path / "model.gguf", tokenizer=False)
    assert (written.heads, written.neurons) == (heads, neurons)
    graph = LlamaGraph(tmp_path / "model.gguf")
    torch.testing.assert_close(graph.logits(IDS), logits_of(model), rtol=0, atol=1e-5)
    rows = [len(graph.weights[f"blk.{block}.ffn_up.weight"]) for block in range(len(neurons))]
    assert tuple(rows) == neurons
    added = any(given != wrote for given, wrote in zip([each[2] for each in widths], neurons, strict=True))
    assert any("one neuron of zeros" in note for note in written.notes) is added


@pytest.mark.parametrize(
    ("dtype", "matrix", "odd_row", "off"),
    [
        ("f16", "F16", "F16", 0.01),
        ("bf16", "BF16", "BF16", 0.1),
        ("q8_0", "Q8_0", "F16", 0.2),
    ],
)
def test_matrices_are_written_as_asked_and_vectors_as_f32(
    dtype: str, matrix: str, odd_row: str, off: float, tmp_path: Path
) -> None:
    model = uneven_cut(tiny_model("qwen2"))
    written = export_gguf(
        saved(tmp_path / "model", model), tmp_path / "model.gguf", dtype=dtype, tokenizer=False
    )
    graph = LlamaGraph(tmp_path / "model.gguf")
    assert graph.types["blk.1.attn_q.weight"] == graph.types["token_embd.weight"] == matrix
    assert graph.types["blk.0.ffn_down.weight"] == odd_row
    assert {kind for name, kind in graph.types.items() if "norm" in name or "bias" in name} == {"F32"}
    gap = (graph.logits(IDS) - logits_of(model)).abs().max().item()
    assert 0 < gap < off
    # Rows: 32 columns everywhere but 16 of two outputs of attention, and 17, 20 and 40 neurons.
    odd, small = written.notes
    assert odd.startswith("5 tensors (attn_output.weight, ffn_down.weight) stay f16")
    assert odd.endswith("`statprune compress --multiple 32` avoids it.")
    assert small.startswith("18 tensors (attn_k.weight, attn_output.weight")
    assert "K-quants" in small
    assert "ffn_down" not in small


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_auto_is_the_dtype_of_the_model_bit_for_bit(dtype: torch.dtype, tmp_path: Path) -> None:
    model = uneven_cut(tiny_model("llama")).to(dtype)
    export_gguf(saved(tmp_path / "model", model), tmp_path / "model.gguf", tokenizer=False)
    graph = LlamaGraph(tmp_path / "model.gguf")
    assert graph.types["output.weight"] == {torch.bfloat16: "BF16", torch.float16: "F16"}[dtype]
    layer = model.model.layers[0]
    assert torch.equal(graph.weights["blk.0.attn_v.weight"], layer.self_attn.v_proj.weight.float())
    assert torch.equal(graph.weights["blk.0.ffn_down.weight"], layer.mlp.down_proj.weight.float())


def test_even_rows_need_no_note(tmp_path: Path) -> None:
    model = tiny_model("llama", hidden_size=256, intermediate_size=256, num_attention_heads=4)
    written = export_gguf(
        saved(tmp_path / "model", model), tmp_path / "m.gguf", dtype="q8_0", tokenizer=False
    )
    assert written.notes == ()
