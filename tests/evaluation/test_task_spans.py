"""Answers equal a plain search over every window by itself."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from statprune.evaluation.scoring import prepare, score
from statprune.evaluation.spans import LONGEST_ANSWER, N_BEST
from statprune.evaluation.squad import squad_v1, squad_v2
from tests.evaluation.task_files import asked, nested
from tests.saved import letter_tokenizer
from tests.tiny import tiny_model, uneven_cut

SEQ_LEN, STRIDE = 48, 16


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return letter_tokenizer("encoder")


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model("bert", head="BertForQuestionAnswering")


@torch.no_grad()
def plainly(model: Any, tokenizer: Any, row: dict[str, Any]) -> tuple[str, float]:
    """The best answer of a question, and how much more the null score is: window by window, pair by pair."""
    question, context = tokenizer(row["question"].lstrip())["input_ids"], row["context"]
    room = SEQ_LEN - len(question) - 1
    candidates, null, start = [], float("inf"), 0
    while True:
        piece = context[start : start + room]
        ids = question + tokenizer(piece)["input_ids"][1:]
        output = model(input_ids=torch.tensor([ids]))
        first, last = output.start_logits[0].tolist(), output.end_logits[0].tolist()
        null = min(null, first[0] + last[0])
        starts, ends = (sorted(range(len(ids)), key=lambda n: -side[n])[:N_BEST] for side in (first, last))
        for begin in starts:
            for end in ends:
                inside = len(question) <= begin <= end < len(question) + len(piece)
                if inside and end - begin < LONGEST_ANSWER:
                    text = piece[begin - len(question) : end - len(question) + 1]
                    candidates.append((first[begin] + last[end], text))
        if start + room >= len(context):
            break
        start += room - STRIDE
    best = max(candidates, key=lambda candidate: candidate[0], default=(float("-inf"), ""))
    return best[1], null - best[0]


def with_right_ones(rows: list[dict[str, Any]], model: Any, tokenizer: Any) -> list[dict[str, Any]]:
    """Every other question that has answers has the model's among them."""
    for row in rows[::2]:
        if row["answers"]["text"]:
            row["answers"]["text"].append(plainly(model, tokenizer, row)[0])
    return rows


@pytest.mark.parametrize("batch_tokens", [1, 200, 10**6])
def test_v1_equals_a_plain_search(model: Any, tokenizer: Any, batch_tokens: int) -> None:
    rows = with_right_ones(asked(), model, tokenizer)
    prepared = prepare("squad", rows, tokenizer, SEQ_LEN)
    found = prepared.score(model, batch_tokens=batch_tokens)
    predictions = {row["id"]: plainly(model, tokenizer, row)[0] for row in rows}
    golds = {row["id"]: row["answers"]["text"] for row in rows}
    assert found.metrics == squad_v1(golds, predictions)
    assert 0 < found.score < 100
    assert found.score == found.metrics["f1"]
    assert (found.examples, found.truncated, found.skipped) == (len(rows), 0, 0)
    assert found.protocol["windows"] > len(rows), "some contexts have several"
    assert str(STRIDE) in found.protocol["stride"]


def test_v2_equals_a_plain_search_and_finds_the_best_threshold(model: Any, tokenizer: Any) -> None:
    rows = with_right_ones(asked(20, some_without=True), model, tokenizer)
    found = score(model, tokenizer, "squad_v2", rows, seq_len=SEQ_LEN)
    every = {row["id"]: plainly(model, tokenizer, row) for row in rows}
    golds = {row["id"]: row["answers"]["text"] for row in rows}
    expected = squad_v2(golds, {name: "" if none > 0 else text for name, (text, none) in every.items()})
    spans = {name: text for name, (text, _) in every.items()}
    best = squad_v2(golds, spans, {name: none for name, (_, none) in every.items()}, threshold=1e9)
    expected |= {name: value for name, value in best.items() if name.startswith("best_")}
    assert found.metrics == pytest.approx({name: expected[name] for name in found.metrics}, rel=1e-5)
    assert found.protocol["without answer"] == 7


def test_answers_change_with_the_null_score(tokenizer: Any) -> None:
    rows = asked(some_without=True)
    prepared = prepare("squad_v2", rows, tokenizer, SEQ_LEN)
    questions: Any = prepared.questions
    logits = [torch.zeros(len(window.example.ids), 2) for window in questions.windows]
    for tensor in logits:
        tensor[-2] = 1.0  # the last token of the context, before the separator
    predictions, spans, none = questions.answers(logits)
    assert all(predictions.values())
    assert predictions == spans
    assert set(none.values()) == {-2.0}
    for tensor in logits:
        tensor[0] = 1.5
    predictions, after, none = questions.answers(logits)
    assert set(predictions.values()) == {""}
    assert after == spans
    assert set(none.values()) == {1.0}
    for window, tensor in zip(questions.windows, logits, strict=True):
        if window.question == 0:
            tensor[0] = -1.0
            break
    predictions, _, _ = questions.answers(logits)
    assert [name for name, text in predictions.items() if text] == ["q0"], "the least null score counts"


def test_windows_cover_the_context_and_share_the_stride(tokenizer: Any) -> None:
    rows = asked()
    questions: Any = prepare("squad", rows, tokenizer, SEQ_LEN).questions
    for number, row in enumerate(rows):
        spans = [window.spans for window in questions.windows if window.question == number]
        places = [[span for span in each if span is not None] for each in spans]
        for left, right in pairwise(places):
            assert left[-STRIDE:] == right[:STRIDE]
        covered = {place for each in places for begin, end in each for place in range(begin, end)}
        assert covered == set(range(len(row["context"])))


def test_the_download_of_squad_gives_the_same_as_rows_of_the_hub(
    model: Any, tokenizer: Any, tmp_path: Path
) -> None:
    rows = asked(some_without=True)
    (tmp_path / "dev-v2.0.json").write_text(json.dumps(nested(rows)))
    (tmp_path / "dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = [
        score(model, tokenizer, "squad_v2", data, seq_len=SEQ_LEN)
        for data in (rows, str(tmp_path / "dev-v2.0.json"), str(tmp_path / "dev.jsonl"))
    ]
    assert found[0].metrics == found[1].metrics == found[2].metrics
    assert found[1].protocol["data"]["source"] == "dev-v2.0.json"


def test_a_decoder_and_blocks_of_any_widths_answer_too(tokenizer: Any) -> None:
    rows = asked(4)
    for family, head in (("llama", "LlamaForQuestionAnswering"), ("bert", "BertForQuestionAnswering")):
        small = uneven_cut(tiny_model(family, head=head))
        found = score(small, tokenizer, "squad", rows, seq_len=SEQ_LEN)
        golds = {row["id"]: row["answers"]["text"] for row in rows}
        predictions = {row["id"]: plainly(small, tokenizer, row)[0] for row in rows}
        assert found.metrics == squad_v1(golds, predictions)


def test_a_question_that_leaves_no_room_is_cut_and_counted(model: Any, tokenizer: Any) -> None:
    rows = asked(3)
    rows[1]["question"] = "abcde " * 20
    found = score(model, tokenizer, "squad", rows, seq_len=SEQ_LEN)
    assert (found.examples, found.truncated, found.protocol["truncated"]) == (3, 1, 1)
    windows: Any = prepare("squad", rows, tokenizer, SEQ_LEN).questions
    assert max(len(window.example.ids) for window in windows.windows) == SEQ_LEN


def test_what_is_missing_among_the_questions_is_said(model: Any, tokenizer: Any) -> None:
    found = score(model, tokenizer, "squad_v2", asked(3), seq_len=SEQ_LEN)
    assert "every question has an answer among these 3" in found.notes[0]
    assert "NoAns_f1" not in found.metrics


def test_an_empty_answer_is_none(model: Any, tokenizer: Any) -> None:
    rows = [{"question": "a", "context": "b c d", "answers": answer} for answer in ("c", "")]
    prepared = prepare("squad_v2", rows, tokenizer, SEQ_LEN)
    assert prepared.protocol["without answer"] == 1
    assert {"HasAns_f1", "NoAns_f1"} <= set(prepared.score(model).metrics)
