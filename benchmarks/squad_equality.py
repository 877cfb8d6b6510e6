"""Our scores of SQuAD against the official scripts: 1,000 random and adversarial predictions on the dev set.

    STATPRUNE_SHARED=... python benchmarks/squad_equality.py --scripts FOLDER

FOLDER holds evaluate-v1.1.py and evaluate-v2.0.py, as the SQuAD web site gives them. Of v2.0 the dev set is
that of v1.1 with 30% of the questions made unanswerable. Every number must be the same, to the last digit.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from protocol import rows_of, shared, table, write

from statprune.evaluation.squad import squad_v1, squad_v2

sys.path.append(str(Path(__file__).parents[1]))
from tests.evaluation.squad_cases import changed

COUNT, SEEDS = 1000, 10


def official(script: Path, folder: Path, *arguments: str) -> dict[str, Any]:
    ran = subprocess.run(
        [sys.executable, script, *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return json.loads(ran.stdout)


def drawn(rows: list[dict[str, Any]], seed: int, *, some_without: bool) -> tuple[Any, Any, Any]:
    """Right answers, predictions (right, near it, or another question's), and what speaks for no answer."""
    draw = random.Random(seed)
    golds, predictions, no_answer = {}, {}, {}
    for row in draw.sample(rows, COUNT):
        answers = row["answers"]["text"]
        golds[row["id"]] = [] if some_without and draw.random() < 0.3 else answers
        source = answers if draw.random() < 0.8 else draw.choice(rows)["answers"]["text"]
        predictions[row["id"]] = changed(draw.choice(source), draw)
        no_answer[row["id"]] = round(draw.uniform(-3, 3), 2)
    return golds, predictions, no_answer


def compared(scripts: Path, rows: list[dict[str, Any]], seed: int, *, v2: bool) -> dict[str, Any]:
    golds, predictions, no_answer = drawn(rows, seed, some_without=v2)
    qas = [{"id": name, "answers": [{"text": text} for text in texts]} for name, texts in golds.items()]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        dev = {"version": "1.1", "data": [{"paragraphs": [{"qas": qas}]}]}
        for name, content in (("dev", dev), ("found", predictions), ("none", no_answer)):
            (folder / name).write_text(json.dumps(content))
        if v2:
            options = ("-n", "none", "-t", "1.5")
            theirs = official(scripts / "evaluate-v2.0.py", folder, "dev", "found", *options)
            ours = squad_v2(golds, predictions, no_answer, threshold=1.5)
        else:
            theirs = official(scripts / "evaluate-v1.1.py", folder, "dev", "found")
            ours = squad_v1(golds, predictions)
    same = sum(theirs[name] == ours[name] for name in theirs)
    return {
        "scorer": "v2.0" if v2 else "v1.1",
        "seed": seed,
        "f1": ours["f1"],
        "same": same,
        "of": len(theirs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scripts", type=Path, required=True)
    scripts = parser.parse_args().scripts.resolve()
    rows = [row for part in ("train", "validation") for row in rows_of(shared(f"data/squad/{part}.jsonl"))]
    found = [compared(scripts, rows, seed, v2=v2) for v2 in (False, True) for seed in range(SEEDS)]
    told = [
        [
            f"SQuAD {scorer}",
            str(SEEDS * COUNT),
            f"{min(one['f1'] for one in part):.2f} to {max(one['f1'] for one in part):.2f}",
            f"{sum(one['same'] for one in part)} of {sum(one['of'] for one in part)}",
        ]
        for scorer in ("v1.1", "v2.0")
        for part in [[one for one in found if one["scorer"] == scorer]]
    ]
    write(
        "squad-equality",
        "SQuAD's scores: ours against the official scripts",
        {"data": f"{len(rows)} questions of the dev set, {COUNT} drawn by each of {SEEDS} seeds"},
        table(["scorer", "predictions", "F1", "numbers equal to the last digit"], told),
        found,
    )


if __name__ == "__main__":
    main()
