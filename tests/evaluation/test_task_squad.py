"""The scorers of SQuAD say what the official scripts say, to the last digit."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statprune.evaluation.squad import normalised, squad_v1, squad_v2
from tests.evaluation.squad_cases import COUNT, GOLDEN, cases, parts

OFFICIAL = json.loads(GOLDEN.read_text())
ANSWERS = st.lists(st.text(max_size=20), min_size=1, max_size=4)


def of_part(values: dict[str, Any], part: list[str]) -> dict[str, Any]:
    return {name: values[name] for name in part}


def test_v1_is_the_official_script_on_1000_predictions_and_every_part() -> None:
    golds, predictions, _ = cases(some_without=False)
    assert len(predictions) == COUNT == 1000
    told = OFFICIAL["all"]
    for part, official in zip(parts(golds), told, strict=True):
        assert squad_v1(of_part(golds, part), of_part(predictions, part)) == official["v1"]
    assert 40 < told[0]["v1"]["exact_match"] < 60, "right and wrong ones"


def mean(values: Sequence[float]) -> float:
    return 100.0 * sum(values) / len(values)


@pytest.mark.parametrize("some_without", [False, True])
def test_v2_is_the_official_script_on_1000_predictions_and_every_part(some_without: bool) -> None:
    every = cases(some_without=some_without)
    for part, official in zip(parts(every[0]), OFFICIAL["some" if some_without else "all"], strict=True):
        golds, predictions, no_answer = (of_part(values, part) for values in every)
        exact, f1 = (dict(zip(part, official[name], strict=True)) for name in ("exact", "f1"))
        expected: dict[str, float] = {
            "exact": mean(exact.values()),
            "f1": mean(f1.values()),
            "total": len(part),
        }
        for prefix, names in (
            ("HasAns", [name for name in part if golds[name]]),
            ("NoAns", [name for name in part if not golds[name]]),
        ):
            if names:
                expected |= {
                    f"{prefix}_exact": mean([exact[name] for name in names]),
                    f"{prefix}_f1": mean([f1[name] for name in names]),
                    f"{prefix}_total": len(names),
                }
        assert squad_v2(golds, predictions) == expected
        assert squad_v2(golds, predictions, no_answer, threshold=9) == expected | official["best"]


def test_more_than_the_threshold_counts_as_no_answer() -> None:
    golds = {"has": ["x"], "none": []}
    found = squad_v2(golds, {"has": "x", "none": "x"}, {"has": 1.0, "none": 1.1}, threshold=1.0)
    assert (found["HasAns_f1"], found["NoAns_f1"]) == (100.0, 100.0)
    assert squad_v2(golds, {"has": "x", "none": "x"}, {"has": 1.1, "none": 1.0})["exact"] == 0.0


@given(ANSWERS, st.text(max_size=20))
def test_an_answer_scores_as_its_normal_form_and_no_less_with_more_right_ones(
    answers: list[str], found: str
) -> None:
    one = squad_v1({"q": answers}, {"q": found})
    assert one == squad_v1({"q": answers}, {"q": f" {found}!\n"})
    more = squad_v1({"q": [*answers, found]}, {"q": found})
    assert more["exact_match"] == 100.0
    assert 0 <= one["f1"] <= more["f1"] <= 100


def test_normal_form() -> None:
    assert normalised("The  Cat's, a\u00a0dog\u2014an!") == "cats dog\u2014"
    assert normalised("the-end a/b") == "theend ab"
    assert normalised("\u201cThe\u201d") == "\u201c \u201d"


def test_a_question_without_prediction() -> None:
    golds = {"first": ["x"], "second": ["y"]}
    assert squad_v1(golds, {"first": "x"}) == {"exact_match": 50.0, "f1": 50.0}
    with pytest.raises(ValueError, match="'second' has no prediction"):
        squad_v2(golds, {"first": "x"})
    for scorer in (squad_v1, squad_v2):
        with pytest.raises(ValueError, match="no questions"):
            scorer({}, {})
