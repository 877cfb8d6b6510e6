"""Questions, right answers and predictions that scorers of SQuAD disagree about, if they can.

    python -m tests.evaluation.squad_cases evaluate-v1.1.py evaluate-v2.0.py

writes what the official scripts (of the SQuAD web site) say about them to squad_official.json.
"""

import json
import random
import runpy
import sys
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parent / "squad_official.json"
COUNT, PART = 1000, 50
WORDS = (
    *(
        "the",
        "a",
        "an",
        "The",
        "AN",
        "then",
        "a.",
        "(the)",
        "the-end",
        "a/b",
        "an'a",
        "th\u0435",
        "\u00e0",
        "a\u0301",
    ),
    *(
        "1975",
        "1,975",
        "$3.50",
        "3.5%",
        "-7",
        "\u00bd",
        "\u2160",
        "U.S.",
        "rock-n-roll",
        "it's",
        "it\u2019s",
        "\u201cquoted\u201d",
    ),
    *(
        "caf\u00e9",
        "cafe\u0301",
        "\u0130stanbul",
        "stra\u00dfe",
        "STRASSE",
        "\u6771\u4eac",
        "\u3002",
        "\u2014",
        "\u2026",
        "!?",
        "_",
        "the_a",
    ),
    *("Denver", "denver", "Broncos", "Saint", "Bernadette", "gold", "red", "\u00a7", "\U0001f600", "A", "An"),
)
SPACES = (" ", "  ", "\t", "\n", "\u00a0", "\u2003", "\u200b", "", "\x1c")

Cases = tuple[dict[str, list[str]], dict[str, str], dict[str, float]]


def cases(seed: int = 0, count: int = COUNT, *, some_without: bool) -> Cases:
    """Right answers, predictions, and what speaks for no answer, by id; of some questions no right answer."""
    draw = random.Random(seed)
    golds, predictions, no_answer = {}, {}, {}
    for number in range(count):
        name = f"q{number}"
        answers = [_phrase(draw) for _ in range(draw.randint(1, 5))]
        golds[name] = [] if some_without and draw.random() < 0.3 else answers
        predictions[name] = changed(draw.choice(answers), draw)
        no_answer[name] = round(draw.uniform(-3, 3), 1)
    return golds, predictions, no_answer


def changed(answer: str, draw: random.Random) -> str:
    """A prediction: the answer, something near it, nothing, or something else."""
    words = answer.split()

    def decorated() -> str:
        before = draw.choice(("the ", "A ", "(", "\u201c", "\t"))
        return before + answer + draw.choice((".", " !", ")", "\u201d", "\n"))

    def in_disorder() -> str:
        draw.shuffle(words)
        return draw.choice(SPACES).join(words)

    ways = (
        lambda: "",
        lambda: _phrase(draw),
        lambda: draw.choice(("the", " ", "...", "A", "an the", "\u00a0")),
        lambda: " ".join(words[: draw.randint(0, len(words))]),
        decorated,
        in_disorder,
        answer.upper,
        lambda: answer,
    )
    return ways[draw.randrange(8)]()


def by_official(scripts: tuple[str, str], golds: Any, predictions: Any, no_answer: Any) -> dict[str, Any]:
    """What both scripts say; v1.1 only where all questions have answers.

    Of v2.0 the points of each question and the best thresholds: its totals depend on the version of Python,
    whose `sum` of floats rounds once since 3.12.

    Args:
        scripts: Paths of evaluate-v1.1.py and evaluate-v2.0.py.
        golds: Right answers by id.
        predictions: By id.
        no_answer: By id.
    """
    questions = [{"id": name, "answers": [{"text": text} for text in texts]} for name, texts in golds.items()]
    articles = [{"paragraphs": [{"qas": questions}]}]
    told = {}
    if all(golds.values()):
        told["v1"] = runpy.run_path(scripts[0])["evaluate"](articles, predictions)
    script = runpy.run_path(scripts[1])
    exact, f1 = script["get_raw_scores"](articles, predictions)
    told["exact"], told["f1"], told["best"] = list(exact.values()), list(f1.values()), {}
    answerable = script["make_qid_to_has_ans"](articles)
    script["find_all_best_thresh"](told["best"], predictions, exact, f1, no_answer, answerable)
    return told


def parts(golds: dict[str, Any]) -> list[list[str]]:
    """All ids, and then those of every part."""
    names = list(golds)
    return [names, *(names[start : start + PART] for start in range(0, len(names), PART))]


def _phrase(draw: random.Random) -> str:
    text = ""
    for _ in range(draw.randint(1, 5)):
        text += draw.choice(WORDS) + draw.choice(SPACES)
    return text if draw.random() < 0.2 else text.strip()


if __name__ == "__main__":
    written = {}
    for name, some_without in (("all", False), ("some", True)):
        golds, predictions, no_answer = cases(some_without=some_without)
        written[name] = [
            by_official(
                (sys.argv[1], sys.argv[2]),
                *({each: values[each] for each in part} for values in (golds, predictions, no_answer)),
            )
            for part in parts(golds)
        ]
    GOLDEN.write_text(json.dumps(written) + "\n")
