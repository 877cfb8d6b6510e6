"""SQuAD's own scores, v1.1 and v2.0: equal to the official scripts, to the last digit."""

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

_PUNCTUATION = frozenset(string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")

Golds = Mapping[str, Sequence[str]]
"""The right answers to each question, by its id; none where it has no answer."""
Predictions = Mapping[str, str]
"""The answer found, by the question's id; empty for none."""


def normalised(answer: str) -> str:
    """SQuAD's form of an answer: lower case, then no ASCII punctuation, no articles, single spaces."""
    bare = "".join(letter for letter in answer.lower() if letter not in _PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", bare).split())


def squad_v1(golds: Golds, predictions: Predictions) -> dict[str, float]:
    """exact_match and f1, in points, as evaluate-v1.1.py; a question without prediction gets nothing.

    Raises:
        ValueError: There are no questions, or one has no right answer.
    """
    exact, f1 = 0, 0.0
    for question, answers in golds.items():
        if question in predictions:
            found = predictions[question]
            exact += max(normalised(found) == normalised(answer) for answer in answers)
            f1 += max(_overlap(_words(found), _words(answer)) for answer in answers)
    if not golds:
        raise ValueError("no questions: nothing to score")
    return {"exact_match": 100.0 * exact / len(golds), "f1": 100.0 * f1 / len(golds)}


def squad_v2(
    golds: Golds,
    predictions: Predictions,
    no_answer: Mapping[str, float] | None = None,
    threshold: float = 1.0,
) -> dict[str, float]:
    """Exact and f1 in points, of all, of those with and those without an answer, as evaluate-v2.0.py.

    Args:
        golds: Of every question; their order is the order of summation.
        predictions: To every question.
        no_answer: How much speaks for no answer, by question. With it the best thresholds are found too.
        threshold: More than this counts as no answer.

    Raises:
        ValueError: There are no questions, or one has no prediction.
    """
    if missing := [question for question in golds if question not in predictions]:
        raise ValueError(f"question {missing[0]!r} has no prediction; give '' where there is no answer")
    raw = {question: _points(answers, predictions[question]) for question, answers in golds.items()}
    if not raw:
        raise ValueError("no questions: nothing to score")
    certain = no_answer or {}
    kept = {
        question: _Points(*[float(not golds[question])] * 2)
        if certain.get(question, 0.0) > threshold
        else points
        for question, points in raw.items()
    }
    found = {**_means(list(kept.values())), "total": len(kept)}
    for name, has_answer in (("HasAns", True), ("NoAns", False)):
        part = [kept[question] for question in golds if bool(golds[question]) is has_answer]
        if part:
            found |= {f"{name}_{key}": value for key, value in _means(part).items()}
            found[f"{name}_total"] = len(part)
    if no_answer is not None:
        for place, key in enumerate(_Points._fields):
            scores = {question: points[place] for question, points in raw.items()}
            best, at = best_threshold(golds, predictions, scores, no_answer)
            found |= {f"best_{key}": best, f"best_{key}_thresh": at}
    return found


def best_threshold(
    golds: Golds, predictions: Predictions, scores: Mapping[str, float], no_answer: Mapping[str, float]
) -> tuple[float, float]:
    """The most points that any threshold on `no_answer` gives, and the first such threshold."""
    now: float = sum(not answers for answers in golds.values())
    best, at = now, 0.0
    for question in sorted(no_answer, key=lambda each: no_answer[each]):
        if question in scores:
            now += scores[question] if golds[question] else -1 if predictions[question] else 0
            if now > best:
                best, at = now, no_answer[question]
    return 100.0 * best / len(scores), at


class _Points(NamedTuple):
    exact: float
    f1: float


def _points(answers: Sequence[str], found: str) -> _Points:
    right = [answer for answer in answers if normalised(answer)] or [""]
    exact = max(int(normalised(answer) == normalised(found)) for answer in right)
    return _Points(exact, max(_agreement(_words(found), _words(answer)) for answer in right))


def _means(points: Sequence[_Points]) -> dict[str, float]:
    return {
        "exact": 100.0 * sum(each.exact for each in points) / len(points),
        "f1": 100.0 * sum(each.f1 for each in points) / len(points),
    }


def _words(answer: str) -> list[str]:
    return normalised(answer).split()


def _agreement(found: list[str], right: list[str]) -> float:
    """F1, where no words agree with no words."""
    return _overlap(found, right) if found and right else int(found == right)


def _overlap(found: list[str], right: list[str]) -> float:
    """F1 of the words that both share."""
    same = (Counter(found) & Counter(right)).total()
    if same == 0:
        # No float, as in the scripts: since Python 3.12 `sum` adds the two in other ways.
        return 0
    precision, recall = same / len(found), same / len(right)
    return (2 * precision * recall) / (precision + recall)
