"""The task scores, on stand-ins small enough to work out by hand."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from benchmarks.quality import tasks
from benchmarks.quality.tasks import Task, Window, batches, best_span, load, normalised, overlap, padded

LETTERS = "abcdefghijklmnopqrstuvwxyz"


class Words:
    """A tokenizer of one-letter words: a is 1, b is 2; 0 pads. It counts how often it is called."""

    pad_token_id = 0

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, *texts: list[str], truncation: bool, max_length: int) -> dict[str, list[list[int]]]:
        assert truncation
        self.calls += 1
        joined = [" ".join(parts) for parts in zip(*texts, strict=True)]
        return {
            "input_ids": [[LETTERS.index(word) + 1 for word in text.split()][:max_length] for text in joined]
        }


class Stub(torch.nn.Module):
    """A model of one parameter, whose answer is a function of the ids and the mask."""

    def __init__(self, **answers: object) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.answers = answers
        self.eval()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        assert torch.equal(input_ids != 0, attention_mask == 1)
        return SimpleNamespace(**{name: answer(input_ids) for name, answer in self.answers.items()})


def total(ids: Tensor) -> Tensor:
    """The sum of the ids, as the only logit."""
    return ids.sum(1, keepdim=True).float()


def task_of(name: str, rows: list[dict[str, object]]) -> Task:
    kind = tasks.KINDS[name]
    return Task(name, kind.metric, kind.columns, [], kind.seq_len, rows, {})


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("The  Denver Broncos!", "denver broncos"),
        ("a cat, an owl and THE end", "cat owl and end"),
        ("theatre and another", "theatre and another"),
        ("U.S.A. 24-10", "usa 2410"),
        ("the", ""),
    ],
)
def test_answers_are_normalised_as_squad_does(answer: str, expected: str) -> None:
    assert normalised(answer) == expected


@pytest.mark.parametrize(
    ("found", "gold", "expected"),
    [
        ("The Broncos", "broncos", 1.0),
        # Two words of three found are right, two of two gold words are found: P 2/3, R 1, F1 4/5.
        ("denver broncos team", "the Denver Broncos", 0.8),
        # A word counts as often as both have it: one of 2, one of 1.
        ("new new", "new", 2 / 3),
        ("carolina", "denver", 0.0),
        ("", "denver", 0.0),
    ],
)
def test_overlap_is_the_f1_of_shared_words(found: str, gold: str, expected: float) -> None:
    assert overlap(found, gold) == pytest.approx(expected)


def test_the_best_span_is_ordered_and_in_the_context() -> None:
    # Two tokens of question, then "ab cd ef"; padding has the largest logits of all.
    spans = [None, None, (0, 2), (3, 5), (6, 8), None]
    start = torch.tensor([9.0, 0.0, 1.0, 4.0, 5.0, 0.0, 99.0])
    end = torch.tensor([9.0, 9.0, 7.0, 3.0, 2.0, 9.0, 99.0])
    # 5 + 7 would end before it starts; 1 + 7 = 8 beats 4 + 3 and 5 + 2.
    assert best_span(torch.stack([start, end], 1), spans) == (8.0, (0, 2))
    end[4] = 3.5
    assert best_span(torch.stack([start, end], 1), spans) == (8.5, (6, 8))


def test_the_best_span_is_at_most_as_long_as_the_longest_answer() -> None:
    spans = [(token, token + 1) for token in range(40)]
    scores = torch.zeros(40, 2)
    scores[0, 0] = scores[tasks.LONGEST_ANSWER, 1] = 5.0
    scores[tasks.LONGEST_ANSWER - 1, 1] = 4.0
    assert best_span(scores, spans) == (9.0, (0, tasks.LONGEST_ANSWER))


def test_answers_come_from_the_best_window_and_count_against_the_best_gold() -> None:
    rows = [
        {"context": "x the red fox y", "answers": {"text": ["fox", "a red fox"]}},
        {"context": "blue sky", "answers": {"text": ["blue"]}},
    ]
    # An id is its own start and end logit: "red", "fox" (8, 9), in a worse window "y" (7).
    encoded = [
        Window({"input_ids": [8, 9]}, 0, [(6, 9), (10, 13)]),
        Window({"input_ids": [7]}, 0, [(14, 15)]),
        Window({"input_ids": [3, 5, 1]}, 1, [(0, 4), (5, 8), None]),
    ]
    model = Stub(
        start_logits=lambda ids: torch.where(ids == 8, 20.0, ids.float()), end_logits=lambda ids: ids.float()
    )
    found = tasks.measure_answers(model, encoded, rows, 0)
    # "red fox" is the second gold answer (F1 1, exact); "sky" shares nothing with "blue".
    assert found == pytest.approx({"f1": 50.0, "exact": 50.0})
    rows[1]["answers"] = {"text": ["sky is"]}
    # "sky" against "sky is": P 1, R 1/2, F1 2/3.
    assert tasks.measure_answers(model, encoded, rows, 0) == pytest.approx(
        {"f1": 100 * (1 + 2 / 3) / 2, "exact": 50.0}
    )


def test_windows_overlap_cover_the_context_and_know_its_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "STRIDE", 2)
    vocabulary = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "who": 4} | {
        f"w{n}": 10 + n for n in range(9)
    }
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]")
    context = " ".join(f"w{n}" for n in range(9))
    rows = [{"question": "who", "context": "w8"}, {"question": "who", "context": context}]
    made = tasks.windows(rows, ("question", "context"), tokenizer, 9)
    assert [window.row for window in made] == [0, 1, 1, 1]
    words = [[context[slice(*span)] for span in window.spans if span] for window in made[1:]]
    # 9 tokens less [CLS] who [SEP] [SEP] are 5 of the context, of which the next window repeats 2.
    assert words == [["w0", "w1", "w2", "w3", "w4"], ["w3", "w4", "w5", "w6", "w7"], ["w6", "w7", "w8"]]
    assert made[3].inputs["input_ids"] == [2, 4, 3, 16, 17, 18, 3]
    assert made[3].spans[:3] == [None] * 3


def test_batches_hold_every_example_once_within_their_tokens() -> None:
    lengths = [3, 9, 4, 4, 20, 1]
    made = batches(lengths, 10)
    assert made == [[4], [1], [2, 3], [0, 5]]
    assert sorted(index for batch in made for index in batch) == list(range(6))


def test_padding_is_masked_and_of_the_tokenizers_id() -> None:
    made = padded(
        [{"input_ids": [5], "token_type_ids": [1]}, {"input_ids": [6, 7], "token_type_ids": [1, 1]}], 9
    )
    assert made["input_ids"].tolist() == [[5, 9], [6, 7]]
    assert made["token_type_ids"].tolist() == [[1, 0], [1, 1]]
    assert made["attention_mask"].tolist() == [[1, 0], [1, 1]]


def test_accuracy_and_f1_follow_the_order_of_the_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "BATCH_TOKENS", 4)
    texts, labels = ["b a a", "b", "a a", "b b b"], [1, 0, 0, 0]
    task = task_of("sst2", [{"sentence": t, "label": v} for t, v in zip(texts, labels, strict=True)])
    model = Stub(logits=lambda ids: torch.nn.functional.one_hot((ids[:, 0] == 2).long(), 2).float())
    words = Words()
    # It says 1, 1, 0, 1: half are right; 1 true of 3 found and 1 gold, F1 2 / (3 + 1).
    assert task.details(model, words) == pytest.approx({"accuracy": 50.0, "f1": 50.0})
    assert task.score(model, words) == 50.0
    assert words.calls == 1
    task.score(model, Words())
    assert task.score(model, words) == 50.0
    assert words.calls == 2


def test_regression_is_scored_by_rank_and_reads_a_pair_as_one() -> None:
    rows = [
        {"sentence1": "a", "sentence2": "b", "label": 0.1},
        {"sentence1": "z z z", "sentence2": "z", "label": 0.3},
        {"sentence1": "c", "sentence2": "a a", "label": 0.2},
    ]
    # Sums 3, 104 and 5 rank as the labels do; with the last two labels exchanged d^2 = 0 + 1 + 1.
    assert task_of("stsb", rows).score(Stub(logits=total), Words()) == pytest.approx(100.0)
    rows[1]["label"], rows[2]["label"] = 0.2, 0.3
    assert task_of("stsb", rows).score(Stub(logits=total), Words()) == pytest.approx(50.0)


def test_cosines_compare_masked_means_of_each_sentence_alone() -> None:
    # A token's embedding is at an angle of its id; the mean of one angle repeated is that angle.
    def at_angle(ids: Tensor) -> Tensor:
        angle = 0.1 * ids
        return torch.stack([angle.cos(), angle.sin()], dim=-1)

    pairs = [("a a a", "a", 5.0), ("a", "c c", 3.0), ("b b", "h", 1.0), ("c", "d d d d", 4.0)]
    rows = [{"sentence1": one, "sentence2": two, "label": label} for one, two, label in pairs]
    assert task_of("stsb-cosine", rows).score(Stub(last_hidden_state=at_angle), Words()) == pytest.approx(
        100.0
    )


def test_a_model_in_training_or_half_precision_is_refused() -> None:
    task, words = task_of("sst2", [{"sentence": "a", "label": 0}]), Words()
    with pytest.raises(ValueError, match=r"sst2 .* float32 and evaluation"):
        task.score(Stub(logits=total).train(), words)
    with pytest.raises(ValueError, match=r"sst2 .* float32 and evaluation"):
        task.score(Stub(logits=total).half(), words)


def test_a_task_is_loaded_with_a_drawn_subset_and_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "glue" / "stsb"
    folder.mkdir(parents=True)
    rows = [{"sentence1": f"one {n}", "sentence2": f"two {n}", "label": n} for n in range(5)]
    for split in ("train", "test"):
        (folder / f"{split}.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    pairs, alone = load("stsb", tmp_path, limit=3), load("stsb-cosine", tmp_path)
    assert pairs.train[1] == ("one 1", "two 1")
    assert alone.train[2:4] == ["one 1", "two 1"]
    drawn = [row["label"] for row in pairs.rows]
    assert len(drawn) == 3
    assert drawn == sorted(drawn)
    assert "3 of 5 records" in pairs.protocol["test"]
    assert [row["label"] for row in load("stsb", tmp_path, limit=3).rows] == drawn
    assert alone.rows == rows
