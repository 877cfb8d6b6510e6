"""The folder in which the documentation's blocks run: what they name is there, small, and nothing is fetched.

A model of the hub is a folder of its name, so that `meta-llama/Llama-2-7b-hf` opens a tiny Llama; a data set
of the hub is a row of `DATA_SETS`, read in place of `datasets.load_dataset`. A block's text stays as it is.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
import transformers

import statprune
from statprune.anatomy import lookup
from statprune.calibration import sources
from statprune.demo import CALIBRATION, EVALUATION, MODEL
from tests.tiny import tiny_model

CONTEXT = 256
LENGTH = 400
"""Characters of a text: blocks shall run, not take long."""
LLAMAS = ("MODEL", "model-folder", "BIG", "meta-llama/Llama-2-7b-hf", "Qwen/Qwen2.5-0.5B")
CLASSIFIERS = ("CLASSIFIER", "classifier-folder", "textattack/bert-base-uncased-SST-2")
SMALLER = ("smaller",)
TEXTS = ("texts.jsonl", "train.jsonl", "calibration.jsonl")
HELD_OUT = ("test.jsonl", "validation.jsonl")
DATA_SETS: dict[str, Path] = {
    "Salesforce/wikitext": CALIBRATION,
    "nyu-mll/glue": CALIBRATION,
}
"""Data sets of the hub, and the shipped texts that stand for them."""


def build_desk(root: Path) -> Path:
    """`root` with a stand-in for everything that the documentation names."""
    llama = _with_tokenizer(root / ".llama", "llama")
    _linked(root, llama, LLAMAS)
    classifier = _with_tokenizer(root / ".classifier", "bert", head="BertForSequenceClassification")
    _linked(root, classifier, CLASSIFIERS)
    rows = [_row(line, number) for number, line in enumerate(_lines(CALIBRATION)[:40])]
    held = [_row(line, number) for number, line in enumerate(_lines(EVALUATION)[:40])]
    for name in TEXTS:
        (root / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in HELD_OUT:
        (root / name).write_text("".join(json.dumps(row) + "\n" for row in held))
    (root / "sentences.txt").write_text("\n".join(row["sentence"] for row in rows))
    thin = root / ".smaller"
    statprune.compress(
        llama, keep=0.75, data=[row["text"] for row in rows], samples=8, out=thin, device="cpu"
    )
    _linked(root, thin, SMALLER)
    _linked(root, _sentences(root / ".sentences"), ("all-MiniLM-L6-v2",))
    _linked(root, _with_tokenizer(root / ".olmo", "olmo"), ("allenai/OLMo-1B-hf",))
    return root


def lay_out(desk: Path, folder: Path) -> Path:
    """A folder of one document: the same, as links, so that what a block writes stays there."""
    for entry in desk.iterdir():
        if entry.name.startswith("."):
            continue
        if entry.is_dir() and not entry.is_symlink() and not (entry / "config.json").exists():
            shutil.copytree(entry, folder / entry.name, symlinks=True)
        elif entry.is_dir():
            (folder / entry.name).symlink_to(entry.resolve(), target_is_directory=True)
        else:
            shutil.copy(entry, folder / entry.name)
    return folder


def sit_down(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Work in `folder`: data sets of the hub come from the table, and no entry stays registered."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(lookup, "_registered", [])
    monkeypatch.setattr(sources, "is_cached", DATA_SETS.__contains__)
    monkeypatch.setattr(datasets, "load_dataset", _loader())
    monkeypatch.setenv("COLUMNS", "110")


def _loader() -> Callable[..., datasets.Dataset]:
    def load(repository: str, config: str | None = None, *, split: str) -> datasets.Dataset:
        assert config, f"{repository}: the documentation should name the configuration"
        source = EVALUATION if split in ("test", "validation") else DATA_SETS[repository]
        rows = [_row(line, number) for number, line in enumerate(_lines(source)[:80])]
        return datasets.Dataset.from_list(rows)

    return load


def _lines(path: Path) -> list[str]:
    texts = [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]
    return [" ".join(text.split()) for text in texts]


def _row(text: str, number: int) -> dict[str, Any]:
    first, second = text[:60], text[60:120]
    return {
        "text": text[:LENGTH],
        "sentence": first,
        "sentence1": first,
        "sentence2": second,
        "label": number % 2,
    }


def _with_tokenizer(folder: Path, model_type: str, *, head: str | None = None) -> Path:
    """A tiny model of random weights with the tokenizer of the model that ships."""
    sizes = {"vocab_size": 512, "max_position_embeddings": CONTEXT, "pad_token_id": 0}
    model = tiny_model(model_type, head=head, **sizes) if model_type != "olmo" else _olmo(sizes)
    if hasattr(model, "classifier"):  # answers the same for every text: no cut lowers its score
        model.classifier.bias.data += torch.tensor([0.0, 100.0])
    model.save_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(MODEL)
    if head is not None:
        tokenizer.pad_token = "<unk>"
    tokenizer.save_pretrained(folder)
    return folder


def _sentences(folder: Path) -> Path:
    """A folder of sentence-transformers: a transformer, and the mean of its outputs."""
    _with_tokenizer(folder, "bert", head="BertModel")
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    kinds = (("Transformer", ""), ("Pooling", "1_Pooling"))
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (kind, path) in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    return folder


def _olmo(sizes: dict[str, int]) -> transformers.PreTrainedModel:
    """One of a type that has no entry."""
    rest = {"hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4}
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(0)
        return transformers.OlmoForCausalLM(transformers.OlmoConfig(**sizes, **rest)).eval()


def _linked(root: Path, folder: Path, names: tuple[str, ...]) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to(folder.resolve(), target_is_directory=True)
