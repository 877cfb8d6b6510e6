"""Whatever is wrong with a folder is one line that says what, where, and what to do."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import tiny_batch, tiny_model
from transformers import BertForMaskedLM, BertModel, LlamaForCausalLM, LlamaModel, PreTrainedModel

from statprune.checkpoint.load import load, require_finite
from statprune.errors import ModelError, NonFiniteError, StatpruneWarning


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_model("llama").save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def refusal(source: str | Path) -> str:
    with pytest.raises(ModelError) as caught:
        load(source)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    return message


def edit(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def reshape(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def test_a_whole_folder_loads(folder: Path) -> None:
    loaded = load(folder)
    assert type(loaded.model) is LlamaForCausalLM
    assert (loaded.tokenizer, loaded.processor, loaded.source) == (None, None, folder)
    assert not loaded.model.training
    assert loaded.model.dtype == torch.float32
    assert load(str(folder), dtype="bfloat16").model.dtype == torch.bfloat16
    assert load(folder, dtype=torch.float64).model.dtype == torch.float64


def test_without_architectures_it_is_the_base_model(folder: Path) -> None:
    edit(folder, architectures=None)
    with pytest.warns(StatpruneWarning, match="lm_head.weight left out"):
        assert type(load(folder).model) is LlamaModel


def test_a_path_that_does_not_exist(tmp_path: Path) -> None:
    for source in (tmp_path / "no", str(tmp_path / "no"), "./no/such/folder", "../no", "~/no-such-folder"):
        assert "does not exist" in refusal(source)
    (tmp_path / "file").touch()
    assert "is a file" in refusal(tmp_path / "file")


def test_a_hub_name_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    message = refusal("someone/no-such-model")
    assert "'someone/no-such-model'" in message
    assert "hub cannot be reached" in message


def test_no_config(folder: Path) -> None:
    (folder / "config.json").unlink()
    assert "no config.json" in refusal(folder)
    (folder / "adapter_config.json").write_text("{}")
    assert "adapter without its base: merge it" in refusal(folder)


@pytest.mark.parametrize("text", ["{", "[1]", "\x00"])
def test_a_config_that_is_no_config(text: str, folder: Path) -> None:
    (folder / "config.json").write_text(text)
    assert "is not a JSON object" in refusal(folder)


def test_a_config_with_impossible_values(folder: Path) -> None:
    edit(folder, hidden_size="wide")
    assert "config.json cannot be read" in refusal(folder)


def test_a_quantised_model_is_refused_before_its_weights_are_read(folder: Path) -> None:
    edit(folder, quantization_config={"quant_method": "gptq", "bits": 4})
    (folder / "model.safetensors").unlink()
    assert "quantised (gptq)" in refusal(folder)


def test_code_that_comes_with_the_model_is_never_run(folder: Path) -> None:
    (folder / "modeling_own.py").write_text("raise SystemExit('it ran')")
    edit(folder, architectures=["OwnModel"], auto_map={"AutoModelForCausalLM": "modeling_own.OwnModel"})
    assert "modeling_own.OwnModel" in refusal(folder)
    edit(folder, model_type="own", auto_map={"AutoConfig": "modeling_own.OwnConfig"})
    assert "modeling_own.OwnConfig" in refusal(folder)


def test_classes_and_types_that_do_not_exist(folder: Path) -> None:
    edit(folder, architectures=["LlamaForNothing"])
    assert "LlamaForNothing" in refusal(folder)
    edit(folder, model_type="lama")
    assert "model type 'lama' is not known" in refusal(folder)


def test_no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "no model.safetensors" in refusal(folder)
    torch.save({}, folder / "pytorch_model.bin")
    message = refusal(folder)
    assert "pickle (pytorch_model.bin)" in message
    assert "Convert it to safetensors" in message


def test_a_missing_shard(tmp_path: Path) -> None:
    tiny_model("llama").save_pretrained(tmp_path / "model", max_shard_size="20KB")
    shards = sorted((tmp_path / "model").glob("*.safetensors"))
    assert len(shards) > 1
    shards[1].unlink()
    assert f"the shard {shards[1].name} is missing" in refusal(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors.index.json").write_text("{}")
    assert "is not an index" in refusal(tmp_path / "model")


@pytest.mark.parametrize("size", [0, 4, 100, -1])
def test_weights_that_are_cut_short(size: int, folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    assert "damaged or cut short" in refusal(folder)


@pytest.mark.parametrize(
    "name",
    ["model.layers.1.mlp.up_proj.weight", "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"],
)
def test_nothing_is_ever_random(name: str, folder: Path) -> None:
    reshape(folder, lambda weights: weights.pop(name))
    message = refusal(folder)
    assert name in message
    assert "random" in message


def test_more_blocks_than_weights(folder: Path) -> None:
    edit(folder, num_hidden_layers=4)
    assert "model.layers.3" in refusal(folder)


def test_a_weight_of_another_shape(folder: Path) -> None:
    edit(folder, intermediate_size=48)
    assert "do not fit LlamaForCausalLM" in refusal(folder)


def test_a_base_model_saved_without_pooler_has_none(tmp_path: Path) -> None:
    model = tiny_model("bert", head="BertModel")
    model.save_pretrained(tmp_path)
    reshape(tmp_path, lambda weights: [weights.pop(name) for name in list(weights) if "pooler" in name])
    loaded = load(tmp_path)
    assert type(loaded.model) is BertModel
    assert loaded.model.pooler is None


def test_a_head_whose_pooler_was_not_saved_is_refused(tmp_path: Path) -> None:
    tiny_model("bert", head="BertForSequenceClassification").save_pretrained(tmp_path)
    reshape(tmp_path, lambda weights: [weights.pop(name) for name in list(weights) if "pooler" in name])
    assert "bert.pooler.dense.bias and 1 more missing" in refusal(tmp_path)


def test_weights_that_a_block_would_lose_are_refused(tmp_path: Path) -> None:
    tiny_model("llama").save_pretrained(tmp_path)
    edit(tmp_path, num_hidden_layers=2)
    assert "model.layers.2.input_layernorm.weight and 8 more in the weights" in refusal(tmp_path)


def test_a_head_that_was_not_saved_is_refused(tmp_path: Path) -> None:
    model: PreTrainedModel = tiny_model("bert", head="BertForMaskedLM")
    model.save_pretrained(tmp_path)
    assert type(load(tmp_path).model) is BertForMaskedLM
    edit(tmp_path, architectures=["BertForSequenceClassification"])
    assert "would be random in BertForSequenceClassification" in refusal(tmp_path)


def test_a_broken_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")
    assert "its tokenizer cannot be opened" in refusal(folder)


def test_a_per_layer_folder_that_lost_its_widths(tmp_path: Path, cases: Any) -> None:
    case = next(case for case in cases if not case.saved.stock)
    shutil.copytree(case.path, tmp_path / "copy")
    edit(tmp_path / "copy", per_layer_config={})
    assert "do not fit StatpruneLlamaForCausalLM" in refusal(tmp_path / "copy")


def test_a_loaded_per_layer_model_computes_the_same_twice(cases: Any) -> None:
    case = next(case for case in cases if not case.saved.stock)
    batch = tiny_batch(case.model)
    first, second = (load(case.path).model(**batch).logits for _ in range(2))
    assert torch.equal(first, second)


def test_values_that_are_not_finite() -> None:
    model = tiny_model("llama")
    require_finite(model)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[2, :3] = torch.nan
        model.model.layers[1].mlp.up_proj.weight[3, 0] = -torch.inf
    with pytest.raises(NonFiniteError, match=r"1\.mlp\.up_proj\.weight holds 3 NaN and 1 infinite of"):
        require_finite(model)
