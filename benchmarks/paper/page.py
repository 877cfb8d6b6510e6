"""Rows -> Markdown tables: mean and spread over the seeds, the dense model, and figures of others beside."""

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from benchmarks.paper.rows import Row
from benchmarks.protocol import table

SEEDS = (0, 1, 2)
FIGURES = Path(__file__).parent / "figures.json"
SETTING = ("model", "task", "data", "seq_len", "limit", "labels")
CALIBRATED = ("of", "examples", "calibration")
SPREAD = (
    "Cells are the mean over three seeds ± the standard deviation (n - 1); the seed draws the calibration "
    "examples. A cell of fewer seeds says how many. Empty cells have not been run."
)


def cell(scores: Sequence[float], seeds: int = len(SEEDS), digits: int = 2) -> str:
    """Mean ± standard deviation, and the number of scores where it is not `seeds`."""
    if not scores:
        return ""
    spread = f" ± {stdev(scores):.{digits}f}" if len(scores) > 1 else ""
    few = "" if len(scores) == seeds else f" ({len(scores)} seed{'s' if len(scores) > 1 else ''})"
    return f"{fmean(scores):.{digits}f}{spread}{few}"


def lines(
    rows: Sequence[Row], keeps: Sequence[float], expected: Sequence[tuple[str, str]]
) -> list[list[str]]:
    """A line for every model, task and method: model, task, method, dense score, a cell for each share.

    Args:
        rows: what was run.
        keeps: the shares, in the order of the columns.
        expected: model and task of lines that stand there, empty, where nothing was run of them.
    """
    made = []
    dense = {_of(row, SETTING): row for row in rows if row["method"] == "dense"}
    settings = dict.fromkeys(_of(row, SETTING) for row in rows)
    for setting in sorted(settings, key=lambda setting: _place(setting[:2], expected)):
        own = [row for row in rows if _of(row, SETTING) == setting and row["method"] != "dense"]
        score = f"{dense[setting]['score']:.2f}" if setting in dense else ""
        task = _task(setting, dense.get(setting) or own[0])
        kinds = list(dict.fromkeys((row["method"], *_of(row, CALIBRATED)) for row in own))
        for kind in kinds or [("",)]:
            same = [row for row in own if (row["method"], *_of(row, CALIBRATED)) == kind]
            cells = [cell([row["score"] for row in same if row["keep"] == keep]) for keep in keeps]
            made.append([setting[0], task, kind[0], score, *cells])
        made += _of_others(setting, keeps)
    there = {setting[:2] for setting in settings}
    for model, task in expected:
        if (model, task) not in there:
            made.append([model, task, "", "", *([""] * len(keeps))])
    return made


def matrix(rows: Sequence[Row], keeps: Sequence[float], expected: Sequence[tuple[str, str]]) -> str:
    """The lines as a table."""
    head = ["model", "task, metric", "method", "dense", *(f"{keep:g}" for keep in keeps)]
    return table(head, lines(rows, keeps, expected))


def protocols(rows: Sequence[Row]) -> str:
    """A line for every dense row: what was asked of it, and what its narrowed models were calibrated on."""
    told = []
    for row in rows:
        if row["method"] != "dense":
            continue
        own = [one for one in rows if _of(one, SETTING) == _of(row, SETTING) and one["method"] != "dense"]
        drawn = dict.fromkeys(
            f"{one['examples']} examples ({one['calibrated']['tokens']} tokens with seed {one['seed']}) of "
            f"{one['calibration']}"
            for one in own[:1]
        )
        shares = sorted(one["share"] for one in own)
        kept = f"; shares kept {shares[0]:.3f} to {shares[-1]:.3f}" if shares else ""
        told.append(
            f"- {row['model']} on {row['task']}: {row['judged']['examples']}, {row['data']}, "
            f"at most {row['seq_len']} tokens; calibrated on {', '.join(drawn) or 'nothing yet'}{kept}"
        )
    return "\n".join(told)


def versions(rows: Sequence[Row]) -> str:
    """What the rows were made with."""
    made = {json.dumps(row["conditions"], sort_keys=True): row["conditions"] for row in rows}
    return "\n".join(
        "- " + ", ".join(f"{name} {value}" for name, value in one.items()) for one in made.values()
    )


def figures(kind: str) -> list[dict[str, Any]]:
    """Published figures of a kind, each with its source."""
    found: list[dict[str, Any]] = json.loads(FIGURES.read_text(encoding="utf-8"))[kind]
    return found


def write(path: Path, sections: Sequence[str]) -> None:
    """Write a page, and print it."""
    text = "\n\n".join(section for section in sections if section) + "\n"
    path.write_text(text, encoding="utf-8")
    print(text)


def _of(row: Row, names: Sequence[str]) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in names)


def _place(named: tuple[str, str], expected: Sequence[tuple[str, str]]) -> int:
    """Where a model and task stand: in the expected order, others behind in the order of their rows."""
    return list(expected).index(named) if named in expected else len(expected)


def _task(setting: tuple[Any, ...], row: Row) -> str:
    limit = f", first {setting[4]} tokens" if row["metric"] == "perplexity" else f", {setting[4]} examples"
    return f"{setting[1]}, {row['metric']}{limit if setting[4] else ''}"


def _of_others(setting: tuple[Any, ...], keeps: Sequence[float]) -> list[list[str]]:
    """Lines of published figures of the same model and task, read in windows of the same length."""
    made = []
    for one in figures("scores"):
        if (one["model"], one["task"], one["seq_len"]) == (setting[0], setting[1], setting[3]):
            cells = [one["kept"].get(f"{keep:g}", "") for keep in keeps]
            made.append([one["model"], one["task"], f"{one['who']} [{one['source']}]", one["dense"], *cells])
    return made
