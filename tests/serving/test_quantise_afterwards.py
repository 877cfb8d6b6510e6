"""A pruned folder quantised by torchao when it is opened, saved, and opened again."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, TorchAoConfig

import statprune
from statprune.anatomy.lookup import anatomy_of
from statprune.anatomy.producers import module_at
from statprune.errors import ModelError
from tests.checkpoint.folders import write
from tests.saved import letter_tokenizer, sentences
from tests.tiny import tiny_batch, tiny_model, uneven_cut, uniform_cut

torchao = pytest.importorskip("torchao.quantization")
pytestmark = pytest.mark.audit


def opened_as_int8(folder: Path) -> PreTrainedModel:
    """The folder's model with int8 weights, one scale for each row."""
    settings = TorchAoConfig(torchao.Int8WeightOnlyConfig())
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, quantization_config=settings)
    return model


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        return model(**tiny_batch(model)).logits


@torch.no_grad()
def rounded(model: PreTrainedModel, quantised: PreTrainedModel) -> PreTrainedModel:
    """`model` with the values of the int8 weights, each within half a step of its own; all at every site."""
    codes = dict(quantised.named_parameters())
    names = {parameter: name for name, parameter in model.named_parameters()}
    anatomy = anatomy_of(model)
    for site in anatomy.sites:
        for path in (*(producer.path for producer in site.producers), site.consumer):
            weight = module_at(anatomy.blocks[site.block], path).weight
            values = codes[names[weight]].dequantize()
            step = weight.abs().amax(dim=1, keepdim=True) / 127.5
            assert bool(((values - weight).abs() <= 0.5001 * step).all())
            weight.copy_(values)
    return model


@pytest.mark.parametrize("cut", [uniform_cut, uneven_cut])
def test_int8_weights_survive_saving(
    cut: Callable[[PreTrainedModel], PreTrainedModel], tmp_path: Path
) -> None:
    model = cut(tiny_model("llama"))
    saved = write(model, tmp_path / "pruned", tokenizer=letter_tokenizer())
    before = statprune.evaluate(model, data=sentences(), tokenizer=letter_tokenizer())
    quantised = opened_as_int8(saved.path)
    found = logits(quantised)
    assert not torch.equal(found, logits(model))
    torch.testing.assert_close(found, logits(rounded(model, quantised)), rtol=0, atol=1e-5)
    after = statprune.evaluate(quantised, data=sentences(), tokenizer=letter_tokenizer())
    assert after.perplexity == pytest.approx(before.perplexity, rel=0.02)

    quantised.save_pretrained(tmp_path / "int8")
    weights = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("int8", "pruned")]
    assert weights[0] < 0.7 * weights[1]
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "int8")
    assert type(again) is type(quantised)
    assert torch.equal(logits(again), found)
    with pytest.raises(
        ModelError, match=r"quantised \(torchao\).*Prune the original checkpoint, then quantise"
    ):
        statprune.compress(tmp_path / "int8", data=sentences(), keep=0.5)
