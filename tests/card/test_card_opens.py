"""Every way to open a folder that its card names works, as the card itself says it; no other is named."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard

import statprune
from statprune.export.gguf import export_gguf
from statprune.export.onnx import export_onnx
from tests.saved import save_tiny, sentences
from tests.serving.test_sentence_folders import build
from tests.tiny import tiny_batch

UNEVEN = {"blocks.0.attention": 1, "blocks.1.feed_forward": 24}
EVEN = {f"blocks.{index}.feed_forward": 24 for index in range(3)}
FEWER = {f"blocks.{index}.attention": 1 for index in range(3)}
ODD = {f"blocks.{index}.attention": 3 for index in range(3)}

CASES: dict[str, tuple[str, dict[str, int], int]] = {
    "llama-uneven": ("llama", UNEVEN, 2),
    "llama-even": ("llama", EVEN, 1),
    "llama-as-mistral": ("llama", ODD, 1),
    "qwen2-fewer": ("qwen2", FEWER, 1),
    "gpt2-uneven": ("gpt2", UNEVEN, 2),
    "gpt2-fewer": ("gpt2", FEWER, 2),
    "bert-uneven": ("bert", UNEVEN, 2),
    "bart-uneven": ("bart", {"encoder.0.attention": 1, "decoder.1.feed_forward": 24}, 2),
    "vit-even": ("vit", EVEN, 1),
    "llama-offloaded": ("llama", UNEVEN, 2),
    "sentence-uneven": ("sentence", UNEVEN, 2),
    "sentence-even": ("sentence", EVEN, 1),
}
"""Name -> what is pruned, the plan, and how many ways there are."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folders."""
    root, found = tmp_path_factory.mktemp("cards"), {}
    for name, (kind, plan, _) in CASES.items():
        source = root / f"in-{name}"
        options: dict[str, Any] = {"plan": plan, "out": root / name, "device": "cpu"}
        if kind == "sentence":
            build(source, "0_Transformer")
            options["data"] = sentences()
        else:
            heads = {"num_key_value_heads": 4} if name == "llama-as-mistral" else {}
            model = save_tiny(source, kind, **heads)
            options["data"] = [tiny_batch(model, rows=8, length=24, seed=seed) for seed in range(3)]
        statprune.compress(str(source), offload=name.endswith("offloaded"), **options)
        found[name] = root / name
    return found


@pytest.fixture(scope="module")
def opened(made: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """What the blocks of Python in the cards have opened."""
    modules = tmp_path_factory.mktemp("modules")
    script = Path(__file__).with_name("opens.py")
    done = subprocess.run(
        [sys.executable, script, *made.values()],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_MODULES_CACHE": str(modules)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, list[Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("name", CASES)
def test_the_blocks_of_a_card_open_its_folder(
    name: str, made: dict[str, Path], opened: dict[str, list[Any]]
) -> None:
    """All of them the same model: it gives the outputs of the first."""
    ways = [value for key, value in opened.items() if key.rpartition(" ")[0] == str(made[name])]
    assert len(ways) == CASES[name][2]
    stock = CASES[name][2] == 1
    text = (made[name] / "README.md").read_text()
    assert ("trust_remote_code" in text.split("## Other programs")[0]) is not stock
    for kind, outputs, with_tokenizer in ways:
        assert kind.startswith("Statprune") is not stock
        assert with_tokenizer is not name.startswith("sentence")
        torch.testing.assert_close(torch.tensor(outputs), torch.tensor(ways[0][1]), rtol=0, atol=1e-5)


@pytest.mark.audit
def test_the_programs_of_a_card_take_its_folder(
    made: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `statprune export` is said to write is written; and where it is not named it is refused."""
    for name in ("llama-even", "gpt2-uneven", "bert-uneven"):
        monkeypatch.chdir(made[name])
        commands = re.findall(r"^statprune export \. (.*)$", Path("README.md").read_text(), re.MULTILINE)
        targets = {shlex.split(command)[1]: shlex.split(command)[3] for command in commands}
        assert targets["onnx"] == "model-onnx"
        written = export_onnx(".", tmp_path / f"{name}-onnx")
        assert written.difference is not None
        assert "gguf" not in targets  # their tokenizer, one token a letter, is none that llama.cpp knows
        with pytest.raises(statprune.errors.ModelError):
            export_gguf(".", tmp_path / f"{name}.gguf")


def test_a_card_names_llama_cpp_where_the_file_can_be_written(tmp_path: Path) -> None:
    assets = Path(statprune.__file__).parent / "assets"
    out = tmp_path / "out"
    statprune.compress(
        assets / "stories260K",
        data=assets / "stories-calibration.jsonl",
        keep=0.8,
        samples=8,
        seq_len=64,
        out=out,
    )
    text = (out / "README.md").read_text()
    assert "statprune export . --to gguf --out model.gguf" in text
    assert export_gguf(out, tmp_path / "model.gguf").architecture == "deci"
    assert "vllm serve . --model-impl transformers --trust-remote-code" in text


def test_vllm_is_named_by_widths_and_family(made: dict[str, Path]) -> None:
    commands = {
        name: re.findall(r"^vllm serve .*$", (path / "README.md").read_text(), re.MULTILINE)
        for name, path in made.items()
    }
    trusting = "vllm serve . --model-impl transformers --trust-remote-code"
    assert commands["llama-even"] == commands["llama-as-mistral"] == ["vllm serve ."]
    assert commands["qwen2-fewer"] == ["vllm serve . --model-impl transformers"]
    assert commands["llama-uneven"] == commands["gpt2-fewer"] == [trusting]
    for name in ("bert-uneven", "bart-uneven", "vit-even", "sentence-uneven", "sentence-even"):
        assert commands[name] == []


@pytest.mark.parametrize("name", CASES)
def test_the_hub_reads_the_metadata(name: str, made: dict[str, Path]) -> None:
    data = ModelCard.load(made[name] / "README.md").data.to_dict()
    library = "sentence-transformers" if name.startswith("sentence") else "transformers"
    assert data["library_name"] == library
    assert {"statprune", "pruned"} <= set(data["tags"])
    assert ("custom_code" in data["tags"]) is (CASES[name][2] == 2)
    assert "base_model" not in data
    assert "license" not in data
    assert "model-index" not in data
    assert "unknown, see the base model" in (made[name] / "README.md").read_text()


def test_a_sentence_folder_keeps_the_text_of_its_card_behind_ours(made: dict[str, Path]) -> None:
    text = (made["sentence-even"] / "README.md").read_text()
    ours, _, behind = text.partition("## Card of the base model")
    assert "SentenceTransformer(folder)" in ours
    assert "scores in it are not those of this model" in behind
    assert behind.endswith("A card.\n")
    assert ModelCard(text).data.tags[0] == "sentence-transformers"
