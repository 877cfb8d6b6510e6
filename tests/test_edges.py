"""Cases that a review found: each was silently wrong, or died late."""

from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaForCausalLM

import statprune
from statprune.anatomy.lookup import anatomy_of
from statprune.calibration import sources as sources_module
from statprune.calibration.records import read
from statprune.errors import ModelError
from tests.saved import letter_tokenizer, sentences
from tests.tiny import tiny_batch, tiny_model


def batches(model: Any) -> list[dict[str, torch.Tensor]]:
    return [tiny_batch(model, rows=8, seed=seed) for seed in (1, 2)]


@pytest.mark.parametrize(
    ("model_type", "options"),
    [
        ("gpt2", {"n_inner": None}),
        ("mistral", {"sliding_window": 8}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}),
        ("opt", {"do_layer_norm_before": False, "word_embed_proj_dim": 16}),
        ("llama", {"attention_bias": True, "mlp_bias": True}),
        ("llama", {"tie_word_embeddings": True}),
        ("llama", {"head": "LlamaForSequenceClassification", "pad_token_id": None}),
        ("bert", {"head": "BertForQuestionAnswering", "return_dict": False}),
        ("bert", {"head": "BertForMultipleChoice"}),
    ],
)
@pytest.mark.parametrize("widths", ["uniform", "per-layer"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_variant_of_a_family_is_pruned_saved_and_verified(
    model_type: str, options: dict[str, Any], widths: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    model = tiny_model(model_type, **options).to(dtype)
    data = [tiny_batch(tiny_model(model_type), rows=8, seed=seed) for seed in (1, 2)]
    result = statprune.compress(model, data=data, keep=0.6, widths=widths, out=tmp_path / "out")
    assert result.folder is not None
    assert result.record["cost"]["params"]["share"] <= 0.6


def test_a_class_of_the_callers_own_is_refused() -> None:
    class Mine(LlamaForCausalLM):
        """Computes something else."""

    model = Mine(tiny_model("llama").config)
    with pytest.raises(ModelError, match=r"Mine is a class of .*Give the stock model"):
        statprune.compress(model, data=batches(model), keep=0.6)


def test_mixed_dtypes_are_refused_before_the_run_when_a_folder_is_asked_for(tmp_path: Path) -> None:
    model = tiny_model("llama").to(torch.bfloat16)
    model.model.norm.float()
    with pytest.raises(ModelError, match=r"model\.norm\.weight is torch\.float32"):
        statprune.compress(model, data=batches(model), keep=0.6, out=tmp_path / "out")


def test_a_forward_that_someone_hooked_onto_a_block_is_there_afterwards() -> None:
    model = tiny_model("llama")
    block = anatomy_of(model).blocks[1]
    stock, calls = block.forward, []

    def hooked(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return stock(*args, **kwargs)

    block.forward = hooked
    statprune.compress(model, data=batches(model), keep=0.6)
    assert block.forward is hooked
    assert calls


def test_a_folder_of_splits_is_read_by_the_split(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"text": "train"}\n')
    (tmp_path / "test.jsonl").write_text('{"text": "test"}\n')
    assert list(read(str(tmp_path)).texts) == ["train"]
    assert list(read(str(tmp_path), split_default="test").texts) == ["test"]
    assert list(read(f"{tmp_path}@test").texts) == ["test"]


def test_of_a_hub_data_set_only_the_beginning_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = datasets.Dataset.from_dict({"text": ["x" * 100] * 1000, "url": ["u"] * 1000})
    asked: list[dict[str, Any]] = []

    def load_dataset(name: str, config: str | None, **options: Any) -> Any:
        asked.append(options)
        return rows.to_iterable_dataset() if options.get("streaming") else rows

    monkeypatch.setattr(sources_module.datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(sources_module.huggingface_hub.HfApi, "dataset_info", lambda *_, **__: None)
    beginning = read("some/corpus:en", characters=950, text_column="text")
    assert len(beginning.texts) == 10
    assert asked == [{"split": "train", "streaming": True}]
    assert len(read("some/corpus:en", text_column="text").texts) == 1000


@pytest.mark.parametrize("torch_format", [False, True])
def test_a_data_set_of_token_ids_is_read_as_such(torch_format: bool) -> None:
    ids = [[5 + (i * j) % 50 for j in range(20)] for i in range(20)]
    data = datasets.Dataset.from_dict({"input_ids": ids})
    model, twin = tiny_model("llama"), tiny_model("llama")
    statprune.compress(model, data=data.with_format("torch") if torch_format else data, keep=0.6, seq_len=16)
    statprune.compress(twin, data=ids, keep=0.6, seq_len=16)
    for name, value in model.state_dict().items():
        assert torch.equal(value, twin.state_dict()[name])


def test_a_generator_of_strings_is_text() -> None:
    model, twin = tiny_model("llama"), tiny_model("llama")
    for each, data in ((model, (text for text in sentences())), (twin, sentences())):
        statprune.compress(each, data=data, tokenizer=letter_tokenizer(), keep=0.6, seq_len=16)
    assert torch.equal(model.model.layers[0].mlp.down_proj.weight, twin.model.layers[0].mlp.down_proj.weight)


def test_the_licence_of_a_model_in_memory_comes_along(tmp_path: Path) -> None:
    tiny_model("llama").save_pretrained(tmp_path / "dense")
    (tmp_path / "dense" / "LICENSE").write_text("as it was")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "dense")
    statprune.compress(model, data=batches(model), keep=0.6, out=tmp_path / "out")
    assert (tmp_path / "out" / "LICENSE").read_text() == "as it was"


def test_macs_are_counted_at_the_length_of_the_batches() -> None:
    model = tiny_model("bert", max_position_embeddings=512)
    result = statprune.compress(model, data=batches(model), keep=0.25, of="macs")
    assert result.record["context"] == 12
    assert result.record["cost"]["macs"]["share"] <= 0.25


@pytest.mark.parametrize(
    ("backend", "rows", "said"),
    [
        ("gram", 3, None),
        ("gram", 1, "64 calibration tokens for 160 columns at blocks.0.feed_forward"),
        ("countsketch", 3, None),
        ("countsketch", 1, "64 calibration tokens for 160 columns"),
    ],
)
def test_too_few_rows_for_a_site_are_said(backend: str, rows: int, said: str | None) -> None:
    """160 neurons, 64 tokens a sample."""
    model = tiny_model("llama", intermediate_size=160)
    data = [tiny_batch(model, rows=rows, length=64)]
    options = {"keep": 0.6, "method": "stat", "backend": backend}
    notes = statprune.compress(model, data=data, **options).record["notes"]
    assert [note[: len(said)] for note in notes] == [said] if said else notes == []


def test_a_sketch_too_small_for_a_site_is_said() -> None:
    """One sample of 120 tokens makes a sketch of 100 rows, for 110 neurons."""
    options = {"intermediate_size": 110, "max_position_embeddings": 128}
    for backend, said in (("gram", []), ("gaussian", ["100 rows of the gaussian sketch for 110 columns"])):
        model = tiny_model("llama", **options)
        data = [tiny_batch(model, rows=1, length=120)]
        made = statprune.compress(model, data=data, keep=0.6, method="stat", backend=backend)
        notes = made.record["notes"]
        assert [note[:47] for note in notes] == said
