"""A folder is complete and verified, or it is not there."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from folders import write
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tiny import tiny_batch, tiny_model, uneven_cut, uniform_cut
from tokenizers import Tokenizer, models
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast

from statprune.anatomy.lookup import anatomy_of
from statprune.checkpoint import save as saving
from statprune.checkpoint.aside import check_output
from statprune.checkpoint.load import load
from statprune.checkpoint.verify import verify
from statprune.checkpoint.widths import encode
from statprune.errors import OutputError, VerificationError


@pytest.fixture
def model() -> PreTrainedModel:
    return uneven_cut(tiny_model("llama"))


def test_an_output_that_exists_is_refused(tmp_path: Path, model: PreTrainedModel) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("folder", "file", "link"):
        with pytest.raises(OutputError, match="exists"):
            check_output(tmp_path / name)
        with pytest.raises(OutputError, match="exists"):
            write(model, tmp_path / name)
    with pytest.raises(OutputError, match="no folder"):
        check_output(tmp_path / "missing" / "out")
    with pytest.raises(OutputError, match="no folder"):
        check_output(tmp_path / "file" / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder", "link"]


def test_checking_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_output(tmp_path / "out")
    assert not list(tmp_path.iterdir())

    def refuse(self: Path, *args: Any, **kwargs: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(OutputError, match="cannot be written to"):
        check_output(tmp_path / "out")


def test_what_a_kill_leaves_of_checking_the_next_removes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(self: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rmdir", kill)
        with pytest.raises(KeyboardInterrupt):
            check_output(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == [".out.trial"]
    check_output(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(28, "No space left on device"), OutputError),
        (SafetensorError("No space left"), OutputError),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (VerificationError("no"), VerificationError),
    ],
)
def test_a_failure_leaves_nothing_behind(
    error: BaseException,
    expected: type[BaseException],
    tmp_path: Path,
    model: PreTrainedModel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []

    def fail(folder: Path, *args: Any) -> None:
        seen.append(sorted(path.name for path in folder.parent.iterdir()))
        raise error

    monkeypatch.setattr(saving, "verify", fail)
    with pytest.raises(expected):
        write(model, tmp_path / "out")
    # Until the very end it has another name: a killed process leaves no folder that looks complete.
    assert [len(names) for names in seen] == [1]
    assert seen[0][0].startswith(".out.")
    assert seen[0][0].endswith(".partial")
    assert not list(tmp_path.iterdir())


def test_an_output_that_appears_during_the_run_is_kept(
    tmp_path: Path, model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saving, "verify", lambda *args: (tmp_path / "out").mkdir())
    with pytest.raises(OutputError, match="appeared"):
        write(model, tmp_path / "out")
    assert [path.name for path in tmp_path.rglob("*")] == ["out"]


@pytest.mark.parametrize("cut", [uniform_cut, uneven_cut])
def test_a_changed_weight_is_found(cut: Any, tmp_path: Path) -> None:
    model = cut(tiny_model("gpt2"))
    encoding = encode(model, anatomy_of(model))
    path = write(model, tmp_path / "out").path
    found = verify(path, model, encoding, tiny_batch(model))
    assert found is not None
    assert found.difference <= 1e-5 * found.reach
    assert 0.1 < found.reach < 100
    weights = load_file(path / "model.safetensors")
    name = "transformer.h.1.mlp.c_proj.weight"
    # The last bit of one value.
    weights[name].view(torch.int32)[0, 3] += 1
    save_file(weights, path / "model.safetensors", {"format": "pt"})
    with pytest.raises(VerificationError, match=rf"{name} differs by up to .* at value 3 of"):
        verify(path, model, encoding, None)


def test_a_changed_shape_or_lost_weight_is_found(tmp_path: Path, model: PreTrainedModel) -> None:
    encoding = encode(model, anatomy_of(model))
    path = write(model, tmp_path / "out").path
    weights = load_file(path / "model.safetensors")
    lost = dict(weights)
    del lost["model.layers.0.mlp.up_proj.weight"]
    save_file(lost, path / "model.safetensors", {"format": "pt"})
    with pytest.raises(VerificationError, match=r"layers\.0\.mlp\.up_proj\.weight"):
        verify(path, model, encoding, None)
    weights["model.layers.0.mlp.up_proj.weight"] = weights["model.layers.0.mlp.up_proj.weight"][1:].clone()
    save_file(weights, path / "model.safetensors", {"format": "pt"})
    with pytest.raises(VerificationError, match="does not open"):
        verify(path, model, encoding, None)


def test_a_changed_computation_is_found(tmp_path: Path, model: PreTrainedModel) -> None:
    encoding = encode(model, anatomy_of(model))
    path = write(model, tmp_path / "out").path
    values = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**values, "rms_norm_eps": 0.1}))
    with pytest.raises(VerificationError, match=r"logits differs by .* is allowed"):
        verify(path, model, encoding, tiny_batch(model))
    (path / "config.json").write_text(json.dumps({**values, "dtype": "bfloat16"}))
    with pytest.raises(VerificationError, match=r"float32 .* in memory, but torch\.bfloat16"):
        verify(path, model, encoding, None)


def test_what_belongs_to_a_model_is_carried(tmp_path: Path, model: PreTrainedModel) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("LICENSE", "LICENSE.txt", "NOTICE.md", "USE_POLICY.md"):
        (source / name).write_text(f"the text of {name}")
    (source / "README.md").write_text("about another model")
    words = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1}, unk_token="<unk>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>")
    tokenizer.chat_template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    # Refused by `save_pretrained`, yet checkpoints hold such: a temperature without sampling.
    model.generation_config = GenerationConfig(temperature=0.3, max_new_tokens=7, eos_token_id=[2, 3])
    record = {"plan": {"blocks.0.attention": 1}, "note": "größer"}
    path = write(model, tmp_path / "out", source=source, tokenizer=tokenizer, record=record).path
    for name in ("LICENSE", "LICENSE.txt", "NOTICE.md", "USE_POLICY.md"):
        assert (path / name).read_text() == f"the text of {name}"
    assert not (path / "README.md").exists()
    assert json.loads((path / "statprune.json").read_text()) == record
    loaded = load(path)
    assert loaded.tokenizer is not None
    assert loaded.tokenizer.chat_template == tokenizer.chat_template
    generation = loaded.model.generation_config
    assert (generation.temperature, generation.max_new_tokens) == (0.3, 7)
    assert generation.eos_token_id == [2, 3]
    assert not list(path.glob("*.bin"))
    assert path.stat().st_mode & 0o777 == (tmp_path / "source").stat().st_mode & 0o777
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".")] == []


def test_how_to_load_says_what_is_needed(tmp_path: Path, model: PreTrainedModel) -> None:
    per_layer = write(model, tmp_path / "a")
    assert "import statprune" in per_layer.how_to_load
    assert "trust_remote_code=True" in per_layer.how_to_load
    stock = write(uniform_cut(tiny_model("gpt2")), tmp_path / "b")
    assert stock.how_to_load.startswith("AutoModelForCausalLM.from_pretrained(")
    assert "statprune;" not in stock.how_to_load
    base = write(uneven_cut(tiny_model("bert", head="BertModel")), tmp_path / "c")
    assert "AutoModel.from_pretrained(" in base.how_to_load
