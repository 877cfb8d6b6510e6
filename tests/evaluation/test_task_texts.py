"""Last words and whole texts equal a plain loop, from every source, with the whole protocol told."""

import json
import math
import random
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from statprune.calibration import sources
from statprune.errors import DataError
from statprune.evaluation.scoring import prepare, score
from statprune.evaluation.tasks import TASKS
from tests.saved import SPECIAL, letter_tokenizer, sentences
from tests.tiny import tiny_model, uneven_cut

TEXTS = [task for task in TASKS if task.kind == "perplexity"]
WINDOW = 16


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return letter_tokenizer()


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model("llama")


@torch.no_grad()
def log_shares(model: Any, ids: list[int]) -> Any:
    return model(torch.tensor([ids])).logits[0].double().log_softmax(-1)


def of_windows(model: Any, ids: list[int], window: int, most: int | None = None) -> float:
    """The loop of the GPTQ scripts."""
    losses: list[float] = []
    for start in range(0, len(ids) - window + 1, window)[:most]:
        piece = ids[start : start + window]
        shares = log_shares(model, piece)
        losses += [-float(shares[place, token]) for place, token in enumerate(piece[1:])]
    return math.exp(sum(losses) / len(losses))


@pytest.mark.parametrize("task", TEXTS, ids=lambda task: task.name)
def test_a_text_equals_the_plain_loop_with_the_join_of_its_entry(
    task: Any, model: Any, tokenizer: Any
) -> None:
    rows = sentences()
    found = score(model, tokenizer, task.name, [{task.columns[0]: row} for row in rows], seq_len=WINDOW)
    join = {"wikitext2": "\n\n", "ptb": " ", "c4": " "}[task.name]
    ids = tokenizer(join.join(rows))["input_ids"]
    assert (
        found.score == found.metrics["perplexity"] == pytest.approx(of_windows(model, ids, WINDOW), rel=1e-5)
    )
    assert not found.higher_is_better
    protocol = found.protocol
    assert (protocol["join"], protocol["window"], protocol["stride"]) == (join, WINDOW, WINDOW)
    assert protocol["tokens"] == found.examples * (WINDOW - 1)
    assert protocol["tokens not read"] == len(ids) % WINDOW
    assert (protocol["beginning_of_text"], protocol["dtype"], protocol["split"]) == (True, "float32", None)
    assert protocol["data"]["records"] == len(rows)
    assert json.loads(json.dumps(found.to_json())) == found.to_json()


@pytest.mark.parametrize("task", TEXTS, ids=lambda task: task.name)
def test_the_hub_and_files_give_the_same_number(
    task: Any, model: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, column, calls = sentences(), task.columns[0], []
    if task.name == "wikitext2":
        rows = [text for row in rows for text in (f" {row} \n", "")]

    def load_dataset(*given: Any, **named: Any) -> Any:
        calls.append((given, named))
        return datasets.Dataset.from_dict({column: rows})

    monkeypatch.setattr(sources.datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(sources.huggingface_hub.HfApi, "dataset_info", lambda *_, **__: None)
    hub = score(model, tokenizer, task.name, seq_len=WINDOW)
    name, _, split = task.hub.partition("@")
    assert calls[0][0] == tuple(name.split(":"))
    assert calls[0][1]["split"] == split == hub.protocol["split"]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({column: row}) + "\n" for row in rows))
    plain = {
        "wikitext2": ("wiki.raw", "".join(row or " \n" for row in rows)),
        "ptb": ("ptb.txt", "".join(f" {row} \n" for row in rows)),
    }
    file, text = plain.get(task.name, ("joined.txt", task.join.join(rows)))
    (tmp_path / file).write_text(text)
    for source in ("rows.jsonl", file):
        assert score(model, tokenizer, task.name, str(tmp_path / source), seq_len=WINDOW).score == hub.score


def test_c4_reads_its_first_records_and_windows(
    model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = sentences(1110)
    ids = tokenizer(" ".join(rows[:1100]))["input_ids"]
    found = score(model, tokenizer, "c4", rows, seq_len=WINDOW)
    assert found.examples == 256
    assert found.score == pytest.approx(of_windows(model, ids, WINDOW, 256), rel=1e-5)
    assert found.protocol["data"]["records"] == 1100
    assert found.protocol["tokens of the text"] == len(ids)
    read = []

    def stream(*given: Any, **named: Any) -> Any:
        assert named["streaming"]
        for row in rows:
            read.append(row)
            yield {"text": row}

    monkeypatch.setattr(sources.datasets, "load_dataset", stream)
    monkeypatch.setattr(sources.huggingface_hub.HfApi, "dataset_info", lambda *_, **__: None)
    monkeypatch.setattr(sources.datasets.config, "HF_DATASETS_CACHE", "nowhere")
    assert score(model, tokenizer, "c4", seq_len=WINDOW).score == found.score
    assert len(read) == 1100, "no more is fetched than is read"


def test_the_first_windows_where_fewer_are_wanted(model: Any, tokenizer: Any) -> None:
    rows = sentences()
    found = score(model, tokenizer, "wikitext2", rows, seq_len=WINDOW, max_examples=3)
    ids = tokenizer("\n\n".join(rows))["input_ids"]
    assert found.score == pytest.approx(of_windows(model, ids, WINDOW, 3), rel=1e-5)
    assert (found.examples, found.protocol["examples"]) == (3, "the first 3 windows")


WORDS = (
    "ab",
    "bc",
    "cd",
    "de",
    "ef",
    "fg",
    "gh",
    "hi",
    "ij",
    "jk",
    "kl",
    "lm",
    "mn",
    "no",
    "op",
    "pq",
    "qr",
    "rs",
)


def word_tokenizer() -> Any:
    """One token a word, with the space before it where there is one, as byte-level tokenizers have it."""
    known = [*SPECIAL, *WORDS, *(f" {word}" for word in WORDS)]
    core = Tokenizer(
        models.WordLevel({token: number for number, token in enumerate(known)}, unk_token="<unk>")
    )
    core.pre_tokenizer = pre_tokenizers.Split(Regex(" ?[a-z]+"), "isolated")
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", pad_token="<pad>", unk_token="<unk>"
    )


def passages(model: Any, tokenizer: Any, count: int = 24) -> list[str]:
    """Texts of words; the last word of some is what the model would write."""
    texts, draw = [], random.Random(0)
    for _ in range(count):
        text = " ".join(draw.choices(WORDS, k=draw.randint(1, 9)))
        written = int(log_shares(model, tokenizer(text)["input_ids"])[-1].argmax())
        word = tokenizer.decode([written]).strip()
        texts.append(f"{text} {word if word in WORDS else draw.choice(WORDS)}")
    return texts


def plainly(model: Any, tokenizer: Any, text: str, longest: int = 64) -> tuple[float, bool]:
    """The loss of the last word with the space before it, and whether the model would have written it."""
    before = tokenizer(text[: text.rindex(" ")])["input_ids"]
    ids = tokenizer(text)["input_ids"]
    word = len(ids) - len(before)
    ids = ids[:1] + ids[1:][-(longest - 1) :]
    shares = log_shares(model, ids)
    places = range(len(ids) - word, len(ids))
    loss = -sum(float(shares[place - 1, ids[place]]) for place in places)
    return loss, all(int(shares[place - 1].argmax()) == ids[place] for place in places)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_last_words_equal_one_passage_at_a_time(family: str) -> None:
    model, tokenizer = tiny_model(family), word_tokenizer()
    texts = passages(model, tokenizer)
    every = [plainly(model, tokenizer, text) for text in texts]
    right = sum(fits for _, fits in every)
    assert 0 < right < len(texts)
    for batch_tokens in (1, 60, 10**6):
        found = prepare("lambada", texts, tokenizer).score(model, batch_tokens=batch_tokens)
        assert found.score == found.metrics["accuracy"] == pytest.approx(100 * right / len(texts))
        mean = sum(loss for loss, _ in every) / len(every)
        assert found.metrics["perplexity"] == pytest.approx(math.exp(mean), rel=1e-4)
    assert (found.examples, found.truncated, found.skipped) == (len(texts), 0, 0)
    assert found.protocol["beginning_of_text"] is True


def test_last_words_from_files(model: Any, tmp_path: Path) -> None:
    tokenizer = word_tokenizer()
    texts = passages(model, tokenizer)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    (tmp_path / "plain.txt").write_text("\n".join(texts) + "\n\n")
    expected = score(model, tokenizer, "lambada", texts)
    for file in ("rows.jsonl", "plain.txt"):
        assert score(model, tokenizer, "lambada", str(tmp_path / file)).metrics == expected.metrics


def test_a_long_context_is_cut_from_the_left_and_counted(model: Any, tokenizer: Any) -> None:
    texts = ["ab cd", "one", "abc " * 30 + "de", f"a {'b' * 70}"]
    found = score(uneven_cut(tiny_model("llama")), tokenizer, "lambada", texts, seq_len=64)
    assert (found.examples, found.truncated, found.skipped) == (2, 1, 2)
    found = score(model, tokenizer, "lambada", texts, seq_len=20)
    losses = [plainly(model, tokenizer, text, 20)[0] for text in (texts[0], texts[2])]
    assert found.metrics["perplexity"] == pytest.approx(math.exp(sum(losses) / 2), rel=1e-4)


def test_no_last_word_at_all(tokenizer: Any) -> None:
    with pytest.raises(DataError, match="none of 2 texts has a last word that fits 64 tokens"):
        prepare("lambada", ["one", f"a {'b' * 70}"], tokenizer, 64)
