"""Whole runs for every task head: the model's own inputs in, a folder out that computes the same."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

import statprune
from statprune.anatomy.lookup import anatomy_of
from statprune.checkpoint.load import load
from statprune.errors import ModelError
from tests.tiny import tiny_batch, tiny_model

HEADS = [
    ("bert", "BertForSequenceClassification"),
    ("bert", "BertForTokenClassification"),
    ("bert", "BertForQuestionAnswering"),
    ("bert", "BertForMaskedLM"),
    ("bert", "BertForMultipleChoice"),
    ("bert", "BertModel"),
    ("llama", "LlamaForSequenceClassification"),
    ("llama", "LlamaForCausalLM"),
    ("vit", "ViTForImageClassification"),
    ("vit", "ViTModel"),
    ("bart", "BartForConditionalGeneration"),
    ("bart", "BartForSequenceClassification"),
    ("bart", "BartForQuestionAnswering"),
    ("whisper", "WhisperForConditionalGeneration"),
    ("t5", "T5ForConditionalGeneration"),
    ("t5", "T5ForSequenceClassification"),
]
NAMES = [head for _, head in HEADS]


def inputs(model: PreTrainedModel, seed: int, rows: int = 6) -> dict[str, Tensor]:
    """What a user would give: no mask for images and sound; the ends that classifiers look for."""
    batch = tiny_batch(model, rows=rows, seed=seed)
    if model.main_input_name != "input_ids":
        del batch["attention_mask"]
    elif model.config.is_encoder_decoder and "Conditional" not in type(model).__name__:
        batch["input_ids"][:, -1] = model.config.eos_token_id
        del batch["decoder_input_ids"], batch["decoder_attention_mask"]
    return batch


def batches(model: PreTrainedModel) -> list[dict[str, Tensor]]:
    return [inputs(model, seed) for seed in range(3)]


@torch.no_grad()
def outputs(model: PreTrainedModel, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in model(**batch).items() if isinstance(value, Tensor)}


@pytest.mark.parametrize("method", ["refit", "stat"])
@pytest.mark.parametrize(("model_type", "head"), HEADS, ids=NAMES)
def test_a_folder_computes_what_the_model_in_memory_does(
    model_type: str, head: str, method: str, tmp_path: Path
) -> None:
    model = tiny_model(model_type, head=head)
    if "BartForSequence" in head or "T5ForSequence" in head:
        model.config.problem_type = "single_label_classification"
    batch = inputs(model, 9)
    dense = outputs(model, batch)
    result = statprune.compress(
        model, data=batches(model), keep=0.6, method=method, multiple=1, out=tmp_path / "out"
    )
    cost = result.record["cost"]["params"]
    assert cost["share"] <= 0.6
    assert cost["share"] == pytest.approx(_counted(model) / _counted(tiny_model(model_type, head=head)))
    opened = load(tmp_path / "out").model
    assert type(opened).__name__.removeprefix("Statprune") == head
    thin = outputs(model, batch)
    changed = 0.0
    for name, value in outputs(opened, batch).items():
        torch.testing.assert_close(value, thin[name], rtol=1e-5, atol=1e-5)
        changed = max(changed, float((value - dense[name]).abs().max()))
    assert changed > 1e-4, "something was cut"
    if method == "refit":
        assert result.trace.divergence is not None


def _counted(model: PreTrainedModel) -> int:
    """Parameters of the sites, off the modules."""
    total = 0
    for site in anatomy_of(model).sites:
        block = anatomy_of(model).blocks[site.block]
        for path in {*(producer.path for producer in site.producers), site.consumer}:
            total += sum(parameter.numel() for parameter in block.get_submodule(path).parameters())
    return total


@pytest.mark.parametrize(
    ("model_type", "head", "missing"),
    [
        ("t5", "T5EncoderModel", "decoder"),
        ("bart", "BartForCausalLM", "encoder"),
        ("whisper", "WhisperForAudioClassification", "decoder"),
    ],
)
def test_half_a_model_is_refused_as_such(model_type: str, head: str, missing: str) -> None:
    with pytest.raises(ModelError, match=rf"^{head} has no {missing}: of '{model_type}' only models with"):
        anatomy_of(tiny_model(model_type, head=head))


@pytest.mark.parametrize("model_type", ["bart", "t5", "whisper", "vit"])
def test_no_perplexity_where_there_is_none(model_type: str) -> None:
    with pytest.raises(ModelError, match="perplexity"):
        statprune.evaluate(tiny_model(model_type), data=["some text"])
