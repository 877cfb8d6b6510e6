"""What llama.cpp cannot say is refused before anything is written; what is wrong does not get its name."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import statprune.export.gguf as target
from statprune.errors import InputError, ModelError, OutputError, VerificationError
from statprune.export.gguf import export_gguf
from statprune.export.gguf_runtime import run
from tests.export.gguf_models import saved
from tests.saved import save_tiny
from tests.tiny import tiny_model, uneven_cut, uniform_cut

YARN = {
    "rope_type": "yarn",
    "rope_theta": 500.0,
    "factor": 4.0,
    "original_max_position_embeddings": 16,
}
LLAMA3 = {**YARN, "rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}

REFUSED: list[tuple[str, bool, dict[str, Any], str]] = [
    ("opt", False, {}, "'opt' cannot be written as GGUF.*llama, mistral, qwen2, qwen3"),
    ("llama", False, {"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
    ("mistral", True, {"sliding_window": 16}, "window of 16 tokens.*see all 64"),
    ("qwen2", False, {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1}, "window of"),
    ("llama", True, {"rope_parameters": YARN}, "'yarn'.*default, linear, llama3"),
    (
        "qwen3",
        True,
        {"rope_parameters": LLAMA3, "tie_word_embeddings": True},
        "'llama3'.*'openelm'.*by default, linear\\.",
    ),
    (
        "qwen3",
        True,
        {},
        "differ in heads and key-value heads and neurons.*tied.*nearest.*: 2 heads, 1 key.*--widths uniform",
    ),
    ("qwen3", False, {"attention_bias": True}, "q_proj.bias: llama.cpp's 'qwen3' has no place"),
]


@pytest.mark.parametrize(("model_type", "uneven", "config", "told"), REFUSED)
def test_what_llama_cpp_cannot_say_is_refused(
    model_type: str, uneven: bool, config: dict[str, Any], told: str, tmp_path: Path
) -> None:
    cut = uneven_cut if uneven else uniform_cut
    folder = saved(tmp_path / "model", cut(tiny_model(model_type, **config)))
    with pytest.raises(ModelError, match=told):
        export_gguf(folder, tmp_path / "model.gguf", tokenizer=False)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_model_without_a_head_is_refused(tmp_path: Path) -> None:
    save_tiny(tmp_path / "model", "llama", head="LlamaModel")
    with pytest.raises(ModelError, match="LlamaModel has no language-modelling head"):
        export_gguf(tmp_path / "model", tmp_path / "model.gguf")


def test_weights_beyond_f16_are_refused(tmp_path: Path) -> None:
    model = tiny_model("llama")
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[2, 3] = 1e6
    folder = saved(tmp_path / "model", model)
    for dtype in ("f16", "q8_0"):
        with pytest.raises(InputError, match=r"layers\.1\.mlp\.up_proj\.weight reaches 1e\+06.*bf16 or f32"):
            export_gguf(folder, tmp_path / "model.gguf", dtype=dtype, tokenizer=False)
    with pytest.raises(InputError, match=r"dtype is 'q4_k'.*q8_0"):
        export_gguf(folder, tmp_path / "model.gguf", dtype="q4_k", tokenizer=False)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_file_that_exists_stays(tmp_path: Path) -> None:
    (tmp_path / "mine.gguf").write_text("mine")
    with pytest.raises(OutputError, match="exists, and nothing is ever overwritten"):
        export_gguf(tmp_path / "nowhere", tmp_path / "mine.gguf")
    assert (tmp_path / "mine.gguf").read_text() == "mine"


def test_without_the_library_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    monkeypatch.setattr("statprune.export.target.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"library gguf.*pip install 'statprune\[gguf\]'"):
        export_gguf(tmp_path / "model", tmp_path / "model.gguf")


@pytest.mark.usefixtures("alone")
def test_a_byte_that_changes_on_disk_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = target._write

    def write_and_damage(path: Path, *arguments: Any) -> None:
        own(path, *arguments)
        content = bytearray(path.read_bytes())
        content[-100] ^= 1
        path.write_bytes(content)

    monkeypatch.setattr(target, "_write", write_and_damage)
    folder = saved(tmp_path / "model", tiny_model("llama"))
    with pytest.raises(VerificationError, match=r"output\.weight is not what was written"):
        export_gguf(folder, tmp_path / "model.gguf", tokenizer=False)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("off", [1e-2, float("nan")])
def test_logits_that_differ_keep_nothing(off: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama")

    def almost(path: Path, ids: list[int], *, text: str) -> dict[str, Any]:
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0].numpy().copy()
        logits[3, 5] += off
        return {"logits": logits, "tokens": np.array([], int)}

    monkeypatch.setattr(target, "runtime_version", lambda: "0.0")
    monkeypatch.setattr(target, "run", almost)
    folder = saved(tmp_path / "model", model)
    with pytest.raises(VerificationError, match=r"logits of llama.cpp differ by (0.01|nan)"):
        export_gguf(folder, tmp_path / "model.gguf", dtype="f32", tokenizer=False)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("model_type", "dtype", "positions", "off", "kept"),
    [
        ("mixtral", "f16", 11, 1.0, True),
        ("mixtral", "f16", 13, 1.0, False),
        ("mixtral", "f32", 1, 0.01, False),
        ("llama", "f16", 1, 1.0, False),
        ("gpt2", "f32", 24, 0.01, True),
        ("gpt2", "f32", 1, 0.2, False),
    ],
)
def test_what_rounding_may_do_is_allowed_and_no_more(
    model_type: str,
    dtype: str,
    positions: int,
    off: float,
    kept: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Experts may be others at some positions where weights are rounded; gelu is looked up in f16.
    model = tiny_model(model_type)

    def almost(path: Path, ids: list[int], *, text: str) -> dict[str, Any]:
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0].numpy().copy()
        logits[:positions, 5] += off
        return {"logits": logits, "tokens": np.array([], int)}

    monkeypatch.setattr(target, "runtime_version", lambda: "0.0")
    monkeypatch.setattr(target, "run", almost)
    folder, out = saved(tmp_path / "model", model), tmp_path / "model.gguf"
    if kept:
        written = export_gguf(folder, out, dtype=dtype, tokenizer=False)
        assert written.difference == pytest.approx(off, rel=0.05)
        return
    with pytest.raises(VerificationError, match=r"logits of llama.cpp differ by"):
        export_gguf(folder, out, dtype=dtype, tokenizer=False)
    assert not out.exists()


def test_a_runtime_that_dies_is_our_failure(tmp_path: Path) -> None:
    # With llama.cpp it is no GGUF file; without, the module to open it with is missing.
    (tmp_path / "no.gguf").write_bytes(b"no")
    with pytest.raises(VerificationError, match=r"does not open what was written .exit code"):
        run(tmp_path / "no.gguf", [1, 2])
