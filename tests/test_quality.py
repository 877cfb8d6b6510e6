"""`evaluate` equals a loop that anyone can write, from every layout of one text."""

import math
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
import transformers

import statprune
from statprune.demo import EVALUATION, MODEL
from statprune.errors import DataError, ModelError, NonFiniteError
from statprune.evaluation.perplexity import MaskedLoss, Perplexity
from tests.saved import letter_tokenizer, save_tiny, sentences
from tests.tiny import tiny_batch, tiny_model

WINDOW = 256


@pytest.fixture(scope="module")
def rows() -> list[str]:
    """A text in the layout of WikiText's rows on the hub: a newline after each line, "" for a blank one."""
    stories = datasets.load_dataset("json", data_files=str(EVALUATION), split="train")["text"][:12]
    return [row for story in stories for row in (f" {' '.join(story.split())} \n", "")]


@pytest.fixture(scope="module")
def sources(rows: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("texts")
    hub = datasets.Dataset.from_dict({"text": rows})
    datasets.DatasetDict({"test": hub, "train": hub.select([0])}).save_to_disk(root / "saved")
    (root / "stories.test.raw").write_bytes("".join(row or " \n" for row in rows).encode())
    (root / "stories.joined.txt").write_bytes("\n\n".join(rows).encode())
    return {
        "data set": hub,
        "saved folder": root / "saved",
        "saved folder's split": f"{root / 'saved'}@test",
        "raw": root / "stories.test.raw",
        "joined": str(root / "stories.joined.txt"),
        "list": rows,
    }


@pytest.fixture(scope="module")
def expected(rows: list[str]) -> float:
    """The usual script: join, tokenise once, cut, average the loss of whole windows."""
    model = transformers.AutoModelForCausalLM.from_pretrained(MODEL).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(MODEL)
    ids = tokenizer("\n\n".join(rows), return_tensors="pt").input_ids
    losses = []
    with torch.no_grad():
        for start in range(0, ids.shape[1] - WINDOW + 1, WINDOW):
            window = ids[:, start : start + WINDOW]
            logits = model(window).logits[0, :-1]
            losses.append(torch.nn.functional.cross_entropy(logits, window[0, 1:]).item())
    assert len(losses) > 5
    return math.exp(sum(losses) / len(losses))


@pytest.mark.parametrize(
    "source", ["data set", "saved folder", "saved folder's split", "raw", "joined", "list"]
)
def test_perplexity_is_that_of_the_usual_script(
    source: str, sources: dict[str, Any], expected: float
) -> None:
    found = statprune.evaluate(str(MODEL), data=sources[source], seq_len=WINDOW)
    assert isinstance(found, Perplexity)
    assert found.perplexity == pytest.approx(expected, abs=1e-4)
    assert 1 < found.perplexity < 30, "the shipped model knows such stories"
    assert found.protocol["window"] == WINDOW
    assert found.protocol["beginning_of_text"] is True


def test_the_mode_and_the_weights_of_a_model_in_memory_stay() -> None:
    model = tiny_model("llama").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = statprune.evaluate(model, data=sentences(), tokenizer=letter_tokenizer(), seq_len=32)
    assert found == statprune.evaluate(
        model.eval(), data=sentences(), tokenizer=letter_tokenizer(), seq_len=32
    )
    model.train()
    statprune.evaluate(model, data=sentences(), tokenizer=letter_tokenizer())
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_window_is_the_context_where_none_is_given() -> None:
    found = statprune.evaluate(tiny_model("gpt2"), data=sentences(), tokenizer=letter_tokenizer())
    assert found.protocol["window"] == 64


def test_a_pruned_folder_is_evaluated_as_the_model_in_memory(tmp_path: Path) -> None:
    model = save_tiny(tmp_path / "dense", "llama")
    options = {"data": sentences(), "tokenizer": letter_tokenizer()}
    dense = statprune.evaluate(tmp_path / "dense", **options)
    assert dense.nll == pytest.approx(statprune.evaluate(model, **options).nll, rel=1e-6)
    pruned = statprune.compress(
        model, data=[tiny_batch(model, rows=16)], keep=0.5, widths="per-layer", out=tmp_path / "pruned"
    ).model
    found = statprune.evaluate(tmp_path / "pruned", **options)
    assert found.nll == pytest.approx(statprune.evaluate(pruned, **options).nll, rel=1e-6)
    assert found.nll != pytest.approx(dense.nll, rel=1e-3)


@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_masked_loss_repeats_with_its_seed(family: str, tmp_path: Path) -> None:
    save_tiny(tmp_path / "model", family)
    found = [statprune.evaluate(tmp_path / "model", data=sentences(), seed=seed) for seed in (3, 3, 4)]
    assert all(isinstance(each, MaskedLoss) for each in found)
    assert found[0] == found[1]
    assert found[0].loss != found[2].loss
    assert found[0].protocol["seed"] == 3
    assert found[0].samples == len(sentences())
    # 15% of the letters of each line.
    assert found[0].tokens == found[2].tokens == sum(max(1, round(0.15 * len(line))) for line in sentences())


def test_masked_loss_is_that_of_the_chosen_places() -> None:
    """A model that gives every token the same probability loses ln 64 at each mask, whichever they are."""
    model = tiny_model("bert")
    with torch.no_grad():
        decoder = model.get_output_embeddings()
        decoder.weight = torch.nn.Parameter(torch.zeros_like(decoder.weight))
        decoder.bias.zero_()
        model.cls.predictions.bias.zero_()
    found = statprune.evaluate(model, data=sentences(), tokenizer=letter_tokenizer("encoder"))
    assert found.loss == pytest.approx(math.log(64))


@pytest.mark.parametrize(
    ("head", "message"),
    [("LlamaModel", "no language-modelling head"), ("LlamaForSequenceClassification", "no language-model")],
)
def test_a_model_without_such_a_head_is_refused(head: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        statprune.evaluate(tiny_model("llama", head=head), data=sentences(), tokenizer=letter_tokenizer())


def test_infinite_weights_are_refused_before_the_data_is_read() -> None:
    model = tiny_model("llama")
    with torch.no_grad():
        model.lm_head.weight[5, 5] = math.inf
    with pytest.raises(NonFiniteError, match=r"lm_head\.weight holds 0 NaN and 1 infinite"):
        statprune.evaluate(model, data="nowhere.txt", tokenizer=letter_tokenizer())


def test_batches_are_for_compress_alone() -> None:
    model = tiny_model("llama")
    with pytest.raises(DataError):
        statprune.evaluate(model, data=[tiny_batch(model)], tokenizer=letter_tokenizer())
