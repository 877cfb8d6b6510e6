"""Calibration data in every form that the API takes, and what samples and masks do."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

import statprune
from statprune.errors import DataError, InputError
from tests.saved import letter_tokenizer, sentences
from tests.test_pipeline import same_weights
from tests.tiny import tiny_batch, tiny_model

LINES = sentences()
LENGTH = 32
Form = Callable[[Path], Any]


def token_ids() -> list[list[int]]:
    """The ids of the joined lines, in pieces of no particular length."""
    ids = letter_tokenizer()("\n\n".join(LINES)).input_ids
    return [ids[start : start + 50] for start in range(0, len(ids), 50)]


def windows() -> list[dict[str, Tensor]]:
    """All windows of the joined lines, three to a batch."""
    ids = torch.tensor([token for piece in token_ids() for token in piece])
    rows = ids[: len(ids) // LENGTH * LENGTH].view(-1, LENGTH)
    return [{"input_ids": part, "attention_mask": torch.ones_like(part)} for part in rows.split(3)]


def written(folder: Path, name: str, content: str) -> str:
    (folder / name).write_text(content)
    return str(folder / name)


FORMS: dict[str, Form] = {
    "token ids": lambda _: token_ids(),
    "arrays of token ids": lambda _: [torch.tensor(piece) for piece in token_ids()],
    "data set": lambda _: datasets.Dataset.from_dict({"text": LINES}),
    "data set, one column of strings": lambda _: datasets.Dataset.from_dict({"story": LINES, "n": range(40)}),
    "rows": lambda _: [{"text": line} for line in LINES],
    "file of rows": lambda here: written(here, "a.jsonl", "\n".join(json.dumps({"text": x}) for x in LINES)),
    "path of prose": lambda here: Path(written(here, "a.txt", "\n\n".join(LINES))),
    "batches": lambda _: windows(),
    "batches without masks": lambda _: [{"input_ids": batch["input_ids"]} for batch in windows()],
    "generator": lambda _: (batch for batch in windows()),
    "loader": lambda _: DataLoader(windows(), batch_size=None),
    "loader of token ids": lambda _: DataLoader(
        [{"input_ids": row} for batch in windows() for row in batch["input_ids"]], batch_size=4
    ),
}  # fmt: skip


def compressed(model: PreTrainedModel, data: Any, **options: Any) -> statprune.Result:
    return statprune.compress(
        model,
        data=data,
        **{"keep": 0.6, "method": "stat", "tokenizer": letter_tokenizer(), "seq_len": LENGTH, **options},
    )


@pytest.fixture(scope="module")
def from_strings() -> statprune.Result:
    return compressed(tiny_model("llama"), LINES)


@pytest.mark.parametrize("form", FORMS)
def test_the_form_of_the_data_changes_nothing(
    form: str, from_strings: statprune.Result, tmp_path: Path
) -> None:
    """128 samples are asked, all 44 windows are used: the Gram matrices differ in rounding alone."""
    result = compressed(tiny_model("llama"), FORMS[form](tmp_path))
    assert result.plan == from_strings.plan
    assert result.record["data"]["samples"] == from_strings.record["data"]["samples"] == 44
    first, second = from_strings.model.state_dict(), result.model.state_dict()
    same_weights(first, second, exact=False)


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_batches_are_all_used_in_order(family: str) -> None:
    model = tiny_model(family)
    given = [tiny_batch(model, rows=3 + seed, length=10, seed=seed) for seed in range(5)]
    seen: list[Tensor] = []
    hook = model.get_input_embeddings().register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    result = compressed(model, iter(given), samples=2, tokenizer=None)
    hook.remove()
    tried, *seen = seen
    assert torch.equal(tried, given[0]["input_ids"][:1])
    # Twice: through the dense model, and through the one without its neurons.
    assert len(seen) in (5, 10)
    for number, ids in enumerate(seen):
        assert torch.equal(ids, given[number % 5]["input_ids"])
    assert result.record["data"]["samples"] == 3 + 4 + 5 + 6 + 7
    assert result.record["data"]["seed"] is None


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_what_stands_in_the_padding_changes_nothing(family: str, side: str) -> None:
    states = []
    for filling in (1, 40, 63):
        model = tiny_model(family)
        batch = tiny_batch(model, rows=20, length=16, seed=3)
        for row in range(20):
            padding = slice(16 - row % 7, None) if side == "right" else slice(0, row % 7)
            batch["attention_mask"][row, padding] = 0
            batch["input_ids"][row, padding] = filling
        result = compressed(model, [batch], plan={"blocks.1.feed_forward": 20}, keep=None)
        assert result.record["data"]["tokens"] == int(batch["attention_mask"].sum()) < 320
        states.append(model.state_dict())
    same_weights(*states)


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert"])
def test_padded_rows_count_as_rows_without_padding(family: str) -> None:
    padded = tiny_batch(tiny_model(family), rows=24, length=16, seed=3)
    padded["attention_mask"][12:, 9:] = 0
    apart = [
        {name: value[:12] for name, value in padded.items()},
        {name: value[12:, :9] for name, value in padded.items()},
    ]
    plan = {"blocks.1.feed_forward": 20, "blocks.2.attention": 1}
    states = []
    for data in ([padded], apart):
        result = compressed(tiny_model(family), data, plan=plan, keep=None)
        states.append(result.model.state_dict())
    same_weights(*states, exact=False)


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_the_seed_decides_which_samples_are_drawn(family: str) -> None:
    tokenizer = letter_tokenizer("decoder" if family == "llama" else "encoder")
    # More tokens than the 40 neurons, fewer samples than there are.
    first, again, other = (
        compressed(tiny_model(family), LINES, samples=9, seed=seed, tokenizer=tokenizer) for seed in (5, 5, 6)
    )
    same_weights(first.model.state_dict(), again.model.state_dict())
    assert first.record["data"] == again.record["data"]
    assert first.record["data"]["seed"] == 5
    kept = [site.kept for site in first.trace.sites], [site.kept for site in other.trace.sites]
    assert kept[0] != kept[1]


def test_a_run_does_not_touch_the_seed_of_others() -> None:
    torch.random.default_generator.manual_seed(3)
    state = torch.random.get_rng_state()
    compressed(tiny_model("llama"), LINES, backend="gaussian", samples=4)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_fewer_samples_than_asked_are_noted() -> None:
    result = compressed(tiny_model("llama"), LINES, samples=1000)
    assert "1000 windows asked, 44 available; all are used" in result.record["notes"]
    assert result.record["data"]["asked"] == 1000
    result = compressed(tiny_model("bert"), LINES, samples=1000, tokenizer=letter_tokenizer("encoder"))
    assert "1000 samples asked, 40 records available; all are used" in result.record["notes"]


def test_fewer_tokens_than_columns_are_noted_and_the_run_goes_on() -> None:
    model = tiny_model("llama")
    result = compressed(model, LINES, samples=1)
    (note,) = [note for note in result.record["notes"] if "cannot be told apart" in note]
    assert note.startswith("32 calibration tokens for 40 columns at blocks.0.feed_forward")
    assert all(value.isfinite().all() for value in model.state_dict().values())
    assert compressed(tiny_model("llama"), LINES, samples=2).record["notes"] == []


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (["a b c"], "6 tokens, but one window needs 32"),
        ([], "no text"),
        ([[5, 6, 64] * 40], "token id 64, but the model's vocabulary has 64"),
        ([{"input_ids": torch.full((2, 65), 5)}], "rows of 65 tokens; this model reads 64"),
        (iter([]), "no text"),
        (["text", [1, 2]], "mixed"),
        (7, "data in memory: int found"),
        ({"text": LINES}, "data in memory: dict found"),
        (dict(windows()[0]), "data in memory: dict found"),
    ],
)
def test_data_that_cannot_be_used_is_refused(data: Any, message: str) -> None:
    model = tiny_model("llama")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(DataError, match=message):
        compressed(model, data)
    same_weights(before, model.state_dict())


def test_text_without_a_tokenizer_is_refused() -> None:
    with pytest.raises(DataError, match="LlamaForCausalLM in memory: no tokenizer"):
        compressed(tiny_model("llama"), LINES, tokenizer=None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kept": 0.5}, "no option 'kept'; options are keep, of,"),
        ({"keep": "half"}, "keep is 'half'; give a share above 0"),
        ({"keep": None}, "give keep, .* or a plan"),
        ({"keep": None, "plan": {}}, "the plan names no site"),
        ({"keep": None, "plan": {"blocks.0.attention": True}}, "cannot keep True units"),
        ({"dtype": "bfloat16"}, "dtype bfloat16 is given for a model in memory"),
        ({"seed": 2**64}, "seed is 18446744073709551616; give a whole number from 0"),
        ({"seed": 0.5}, "seed is 0.5"),
        ({"samples": 2.0}, "samples is 2.0; give a whole number"),
        ({"samples": True}, "samples is True; give a whole number"),
    ],
)
def test_options_that_cannot_be_used_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        compressed(tiny_model("llama"), LINES, **options)


def test_lines_become_pairs_where_two_columns_are_named() -> None:
    rows = datasets.Dataset.from_dict({"a": LINES[:20], "b": LINES[20:]})
    result = compressed(
        tiny_model("bert"), rows, text_column=("a", "b"), tokenizer=letter_tokenizer("encoder"), seq_len=64
    )
    assert result.record["data"]["source"]["text_column"] == ["a", "b"]
    lengths: Iterator[int] = (len(a) + len(b) for a, b in zip(LINES[:20], LINES[20:], strict=True))
    assert result.record["data"]["tokens"] == sum(min(64, length + 3) for length in lengths)
