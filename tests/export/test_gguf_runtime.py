"""llama.cpp itself, where it is installed: logits, tokens and texts."""

import json
import os
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GemmaTokenizer, PreTrainedModel

import statprune
import statprune.export.gguf_tensors as tensors
from statprune.checkpoint.load import load
from statprune.errors import VerificationError
from statprune.export.gguf import export_gguf
from statprune.export.gguf_runtime import run
from tests.export.gguf_models import saved, saved_with
from tests.export.test_gguf_families import FAMILIES
from tests.export.test_gguf_models import CASES, EMPTY
from tests.export.test_gguf_vocabulary import STORIES
from tests.saved import sentences
from tests.tiny import tiny_model, uneven_cut

pytest.importorskip("llama_cpp")
pytestmark = pytest.mark.audit

Cut = Callable[[PreTrainedModel], PreTrainedModel]


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16", "q8_0"])
@pytest.mark.parametrize(("model_type", "cut", "config", "architecture"), CASES)
def test_llama_cpp_computes_what_transformers_computes(
    model_type: str, cut: Cut, config: dict[str, Any], architecture: str, dtype: str, tmp_path: Path
) -> None:
    folder = saved(tmp_path / "model", cut(tiny_model(model_type, **config)))
    written = export_gguf(folder, tmp_path / "model.gguf", dtype=dtype, tokenizer=False)
    assert written.architecture == architecture
    assert written.difference is not None
    if dtype == "f32":
        assert written.difference < 5e-5
        assert written.agreement == 1.0


def steep(model: PreTrainedModel) -> PreTrainedModel:
    """The same with all that gelu reads far from 0: llama.cpp has it from a table of f16 only within 10."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.rpartition(".")[0].endswith(("mlp.gate_proj", "mlp.c_fc", "mlp.dense_h_to_4h")):
                parameter.mul_(1e6)
            elif name.endswith(("mlp.down_proj.weight", "mlp.c_proj.weight", "mlp.dense_4h_to_h.weight")):
                parameter.mul_(1e-6)
    return model


@pytest.mark.parametrize(("model_type", "cut", "config", "architecture"), FAMILIES)
def test_llama_cpp_computes_what_the_other_families_compute(
    model_type: str, cut: Cut, config: dict[str, Any], architecture: str, tmp_path: Path
) -> None:
    folder = saved(tmp_path / "steep", steep(cut(tiny_model(model_type, **deepcopy(config)))))
    written = export_gguf(folder, tmp_path / "steep.gguf", dtype="f32", tokenizer=False)
    assert written.architecture == architecture
    assert written.difference is not None
    assert written.largest_logit is not None
    assert written.difference < 5e-5 * written.largest_logit
    assert written.agreement == 1.0


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16", "q8_0"])
@pytest.mark.parametrize(
    ("model_type", "config"),
    [
        ("qwen3_moe", {"norm_topk_prob": True}),
        ("gemma3_text", {"num_hidden_layers": 2}),
        *((each, {}) for each in ("mixtral", "qwen2_moe", "gemma2", "phi3", "gpt2", "gpt_neox")),
    ],
)
def test_llama_cpp_computes_other_families_in_every_dtype(
    model_type: str, config: dict[str, Any], dtype: str, tmp_path: Path
) -> None:
    folder = saved(tmp_path / "model", tiny_model(model_type, **config))
    written = export_gguf(folder, tmp_path / "model.gguf", dtype=dtype, tokenizer=False)
    assert written.difference is not None


@pytest.mark.parametrize(("model_type", "config", "widths", "heads", "neurons"), EMPTY)
def test_llama_cpp_computes_empty_blocks(
    model_type: str, config: dict[str, Any], widths: Any, heads: Any, neurons: Any, tmp_path: Path
) -> None:
    saved_with(tmp_path / "model", model_type, widths, **config)
    written = export_gguf(tmp_path / "model", tmp_path / "model.gguf", tokenizer=False)
    assert written.difference is not None
    assert written.difference < 5e-5


def test_a_file_that_says_another_model_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensors, "in_pairs", lambda weight, columns: weight)
    folder = saved(tmp_path / "model", uneven_cut(tiny_model("llama")))
    for dtype in ("f32", "q8_0"):
        with pytest.raises(VerificationError, match=r"logits of llama\.cpp differ by"):
            export_gguf(folder, tmp_path / "model.gguf", dtype=dtype, tokenizer=False)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


SHARED = os.environ.get("STATPRUNE_SHARED", "")


@pytest.mark.parametrize(
    ("source", "prompt"),
    [
        (STORIES, "Once upon a time, there was a little girl"),
        pytest.param(
            Path(SHARED) / "models" / "wiki-llama-7m",
            "The river flows through the city of",
            marks=pytest.mark.skipif(not SHARED, reason="STATPRUNE_SHARED is not set"),
        ),
    ],
    ids=["stories260K", "wiki-llama-7m"],
)
def test_pruned_models_generate_the_same_text(source: Path, prompt: str, tmp_path: Path) -> None:
    texts = [f"{prompt} and {line}" for line in sentences(300)]
    folder = tmp_path / "pruned"
    statprune.compress(source, keep=0.7, data=texts, samples=16, seq_len=64, out=folder)
    written = export_gguf(folder, tmp_path / "pruned.gguf", dtype="f32")
    assert written.architecture == "deci"
    loaded = load(folder)
    loaded.model.generation_config.eos_token_id = None
    ids = loaded.tokenizer(prompt)["input_ids"]
    found = run(tmp_path / "pruned.gguf", ids, text=prompt, generate=48)
    assert found["tokens"].tolist() == ids
    with torch.no_grad():
        whole = loaded.model.generate(torch.tensor([ids]), max_new_tokens=48, do_sample=False, pad_token_id=0)
    assert found["generated"].tolist() == whole[0, len(ids) :].tolist()


def test_llama_cpp_splits_as_the_gemma_tokenizer_does(tmp_path: Path) -> None:
    core = json.loads((STORIES / "tokenizer.json").read_text())["model"]
    merges = [tuple(pair) for pair in core["merges"]]
    tokenizer = GemmaTokenizer(vocab=core["vocab"], merges=merges)
    folder = saved(tmp_path / "model", tiny_model("gemma2", vocab_size=540), tokenizer)
    # The export compares the tokens of a text in many scripts.
    assert export_gguf(folder, tmp_path / "model.gguf").tokenizer == "llama/default"
