"""A folder of sentence-transformers goes in, and one comes out, wherever in it the transformer lies."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_model

import statprune
from statprune.checkpoint import sentence_folder
from statprune.errors import ModelError, VerificationError
from tests.saved import letter_tokenizer, sentences

PLACES = ("", "0_Transformer")
TEXTS = ["a man plays", "rates rose again and fell"]
UNEVEN = {"blocks.0.attention": 2, "blocks.1.feed_forward": 24, "blocks.2.attention": 3}
EVEN = {f"blocks.{index}.feed_forward": 24 for index in range(3)}
KINDS = "sentence_transformers.models."


def build(folder: Path, place: str) -> Path:
    """A random BERT, mean pooling, a dense layer of 16, normalisation, a model card and settings."""
    from safetensors.torch import save_file  # noqa: PLC0415

    inner = folder / place
    tiny_model("bert", head="BertModel").save_pretrained(inner)
    letter_tokenizer("encoder").save_pretrained(inner)
    (inner / "sentence_bert_config.json").write_text('{"max_seq_length": 20, "do_lower_case": false}')
    for name in ("1_Pooling", "2_Dense"):
        (folder / name).mkdir()
    pooling = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    dense = {"in_features": 32, "out_features": 16, "bias": True}
    dense |= {"activation_function": "torch.nn.modules.activation.Tanh"}
    (folder / "2_Dense" / "config.json").write_text(json.dumps(dense))
    generator = torch.Generator().manual_seed(3)
    weights = {
        "linear.weight": torch.randn(16, 32, generator=generator),
        "linear.bias": torch.randn(16, generator=generator),
    }
    save_file(weights, folder / "2_Dense" / "model.safetensors")
    kinds = zip(
        ("Transformer", "Pooling", "Dense", "Normalize"),
        (place, "1_Pooling", "2_Dense", "3_Normalize"),
        strict=True,
    )
    listed = [
        {"idx": index, "name": str(index), "path": path, "type": KINDS + kind}
        for index, (kind, path) in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    settings = {"prompts": {"query": "find: "}, "default_prompt_name": None, "similarity_fn_name": "cosine"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    (folder / "README.md").write_text("---\ntags: [sentence-transformers]\n---\nA card.\n")
    return folder


def embedded(model: Any, folder: Path) -> torch.Tensor:
    """What the folder's modules make of the transformer in memory, computed by hand."""
    from safetensors.torch import load_file  # noqa: PLC0415

    dense = load_file(folder / "2_Dense" / "model.safetensors")
    rows = []
    for text in TEXTS:
        batch = letter_tokenizer("encoder")(text, truncation=True, max_length=20, return_tensors="pt")
        with torch.no_grad():
            states = model(input_ids=batch["input_ids"]).last_hidden_state[0]
        rows.append(torch.tanh(dense["linear.weight"] @ states.mean(0) + dense["linear.bias"]))
    return torch.nn.functional.normalize(torch.stack(rows), dim=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any]]:
    """By layout and widths: the folder that came out, and the result."""
    root, found = tmp_path_factory.mktemp("sentence"), {}
    for place in PLACES:
        source = build(root / f"in-{place or 'root'}", place)
        for name, widths in (("uneven", UNEVEN), ("even", EVEN)):
            out = root / f"{name}-{place or 'root'}"
            result = statprune.compress(str(source), data=sentences(), plan=widths, out=out, device="cpu")
            found[out.name] = (out, result)
    return found


def test_all_but_the_transformer_is_left_alone(made: dict[str, tuple[Path, Any]]) -> None:
    for name, (out, _) in made.items():
        place = "0_Transformer" if "Transformer" in name else ""
        source = out.parent / f"in-{place or 'root'}"
        new = {f"{place}/model.safetensors".lstrip("/"), f"{place}/config.json".lstrip("/")}
        new.add("README.md")  # ours, with the text of theirs: tests/card
        before = {str(p.relative_to(source)): p.read_bytes() for p in source.rglob("*") if p.is_file()}
        after = {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}
        ours = {f"{place}/modeling_statprune.py".lstrip("/"), "modeling_statprune.py", "statprune.json"}
        assert before.keys() <= after.keys()
        assert set(after) - set(before) <= ours
        assert {path for path in before if before[path] != after[path]} == new
        assert len(before) >= 9


@pytest.mark.parametrize("mode", ["blocked", pytest.param("imported", marks=pytest.mark.audit)])
def test_sentence_transformers_opens_what_came_out(
    mode: str, made: dict[str, tuple[Path, Any]], child: Callable[..., Any]
) -> None:
    found = child("embeds.py", mode, *(str(out) for out, _ in made.values()))
    assert len(found) == (8 if mode == "blocked" else 4)
    for key, (kind, vectors) in found.items():
        trusting, path = key.split(" ", 1)
        out, result = made[Path(path).name]
        uneven = out.name.startswith("uneven")
        if uneven and mode == "blocked" and trusting == "False":
            # Loudly: random weights would be worse than none.
            assert kind in ("AmbiguousGlobalPerLayerAttributeError", "RuntimeError")
            continue
        assert kind == ("StatpruneBertModel" if uneven else "BertModel")
        torch.testing.assert_close(torch.tensor(vectors), embedded(result.model, out), rtol=0, atol=1e-5)


def test_the_folder_says_how_it_opens(made: dict[str, tuple[Path, Any]]) -> None:
    for name, (out, result) in made.items():
        how = result.folder.how_to_load
        assert f'SentenceTransformer("{out}"' in how
        assert how.endswith(
            "trust_remote_code=True)" if "uneven" in name else "# stock sentence-transformers"
        )


def test_what_came_out_goes_in_again(made: dict[str, tuple[Path, Any]], tmp_path: Path) -> None:
    out, first = made["uneven-0_Transformer"]
    assert statprune.inspect(str(out)).model_type == "bert"
    again = statprune.compress(str(out), data=sentences(), plan=EVEN, out=tmp_path / "again", device="cpu")
    widths = again.record["units"]
    assert widths["blocks.0.attention"] == 2
    assert (tmp_path / "again" / "2_Dense" / "model.safetensors").exists()
    assert json.loads((tmp_path / "again" / "0_Transformer" / "config.json").read_text())["auto_map"]
    assert first.model is not again.model


def test_a_folder_that_embeds_otherwise_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The dense layer's weights are of no interest to transformers: only the guard can see the model."""
    source = build(tmp_path / "in", "")
    plain = sentence_folder.copy_rest

    def spoiling(source: Path, out: Path) -> None:
        plain(source, out)
        (out / "1_Pooling" / "config.json").write_text("{}")

    monkeypatch.setattr("statprune.checkpoint.save.copy_rest", spoiling)
    with pytest.raises(VerificationError, match="does not open the saved folder"):
        statprune.compress(str(source), data=sentences(), plan=EVEN, out=tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()


def test_the_guard_tells_another_model(made: dict[str, tuple[Path, Any]]) -> None:
    out, result = made["even-root"]
    sentence_folder.verify_embeddings(out, result.model)
    with pytest.raises(VerificationError, match="embeddings by sentence-transformers differ by"):
        sentence_folder.verify_embeddings(out, tiny_model("bert", head="BertModel", seed=5))


def test_a_model_with_another_head_takes_no_modules(tmp_path: Path) -> None:
    source = build(tmp_path / "in", "")
    assert sentence_folder.belongs_to(source, "BertModel")
    assert not sentence_folder.belongs_to(source, "BertForMaskedLM")
    assert not sentence_folder.belongs_to(None, "BertModel")
    assert not sentence_folder.belongs_to(tmp_path, "BertModel")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "is no list of modules"),
        ("[1]", "is no list of modules"),
        ("[]", "names 0 transformers"),
        (json.dumps([{"type": KINDS + "StaticEmbedding", "path": ""}]), "names 0 transformers"),
        (json.dumps([{"type": KINDS + "Transformer", "path": "../.."}]), "outside the folder"),
        (json.dumps([{"type": KINDS + "Transformer", "path": "0_Missing"}]), "holds no config.json"),
    ],
)
def test_a_modules_file_that_is_none_is_refused(content: str, complaint: str, tmp_path: Path) -> None:
    source = build(tmp_path / "in", "")
    (source / "modules.json").write_text(content)
    with pytest.raises(ModelError, match=complaint):
        statprune.compress(str(source), data=sentences(), plan=EVEN, out=tmp_path / "out", device="cpu")
    shutil.rmtree(source)
