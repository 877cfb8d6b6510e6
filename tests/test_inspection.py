"""`inspect` tells what is there, from the config alone, and as much as the model in memory."""

import json
from collections import Counter
from pathlib import Path

import pytest

import statprune
from statprune.anatomy.lookup import anatomy_of
from statprune.errors import ModelError, UnknownArchitectureError
from tests.saved import save_tiny
from tests.tiny import MODEL_TYPES, tiny_batch, tiny_model


@pytest.mark.parametrize("family", MODEL_TYPES)
def test_everything_is_counted_once(family: str) -> None:
    model = tiny_model(family)
    found = statprune.inspect(model)
    total = sum(parameter.numel() for parameter in model.parameters())
    whole = sum(part["parameters"] for part in found.kept_whole.values())
    assert found.parameters == total == found.prunable_parameters + whole
    sites = anatomy_of(model).sites
    blocks = 6 if model.config.is_encoder_decoder else 3
    wanted = Counter(site.part for site in sites)
    assert {group.part: group.blocks for group in found.sites} == wanted
    assert found.blocks == blocks
    assert wanted["feed_forward"] + wanted["experts"] == blocks
    assert found.sites[-1].units == 40 or found.sites[1].units == 40
    # Units carry all of what is prunable, but the biases of the consumers, 32 numbers each.
    in_units = sum(group.blocks * group.units * group.parameters_per_unit for group in found.sites)
    assert found.prunable_parameters - in_units in (0, len(sites) * 32)
    reasons = anatomy_of(model).kept_whole()
    assert (", ".join(reasons) in found.kept_whole) is bool(reasons)
    assert all(part["why"] for part in found.kept_whole.values())
    assert json.loads(json.dumps(found.to_json()))["model_type"] == family


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert"])
def test_no_weights_are_read(family: str, tmp_path: Path) -> None:
    model = save_tiny(tmp_path, family)
    (tmp_path / "model.safetensors").unlink()
    found, in_memory = statprune.inspect(tmp_path).to_json(), statprune.inspect(model).to_json()
    assert found.pop("model") == str(tmp_path)
    assert in_memory.pop("model") == type(model).__name__
    assert found == in_memory


@pytest.mark.parametrize("groups", [2, 4])
@pytest.mark.parametrize("family", ["llama", "bert"])
def test_a_pruned_folder_shows_its_own_widths(family: str, groups: int, tmp_path: Path) -> None:
    """Groups: sites of one kind and width."""
    model = tiny_model(family)
    data = [tiny_batch(model, rows=16)]
    plan = {
        f"blocks.{n}.{kind}": count
        for n in range(3)
        for kind, count in (("attention", 1), ("feed_forward", 16))
    }
    if groups == 4:
        plan |= {"blocks.0.attention": 2, "blocks.2.feed_forward": 7}
    result = statprune.compress(model, data=data, plan=plan, out=tmp_path / "out")
    found = statprune.inspect(tmp_path / "out")
    assert found.prunable_parameters == result.record["cost"]["params"]["kept"]
    assert found.parameters == sum(parameter.numel() for parameter in model.parameters())
    shown = sorted(group.units for group in found.sites for _ in range(group.blocks))
    assert shown == sorted(site.units for site in anatomy_of(model).sites)
    assert len(found.sites) == groups


def test_what_uniform_heads_need_to_load() -> None:
    assert statprune.inspect(tiny_model("qwen3")).uniform_heads == "load in stock transformers"
    assert "as mistral" in statprune.inspect(tiny_model("llama")).uniform_heads
    assert "need this package" in statprune.inspect(tiny_model("bert")).uniform_heads


def test_what_cannot_be_pruned_is_refused() -> None:
    with pytest.raises(ModelError, match="is_decoder=True"):
        statprune.inspect(tiny_model("bert", head="BertLMHeadModel", is_decoder=True))
    model = tiny_model("llama")
    model.config.model_type = "lama"
    with pytest.raises(UnknownArchitectureError, match=r'(?s)\'lama\'.*down = "mlp.down_proj"'):
        statprune.inspect(model)
