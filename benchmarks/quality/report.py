"""results.jsonl and slicegpt.json -> RESULTS.md: every table, and which goals are met."""

import json
from collections.abc import Callable, Sequence
from math import log
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.protocol import conditions, table

HERE = Path(__file__).parent
README = HERE.parents[1] / "README.md"
MARKS = ("<!-- tables of benchmarks.quality -->\n", "<!-- end of these tables -->")
"""Between the two stand tables of RESULTS.md."""

ORDER = (
    "stat, published",
    "stat, uniform",
    *("random", "magnitude", "wanda-sp", "flap", "least-squares", "mask-tuning", "slicegpt"),
    *("ours", "ours, uniform", "ours, samples as they are"),
)
"""Methods, as tables have them."""

Row = dict[str, Any]
DECODERS = ("wiki-llama-7m", "stories260K")
TASKS = ("sst2", "mrpc", "stsb", "squad")
METRICS = {
    "sst2": "accuracy",
    "mrpc": "accuracy",
    "stsb": "spearman",
    "squad": "f1",
    "stsb-cosine": "spearman",
}


def slicegpt() -> list[Row]:
    """The figures of the original SliceGPT code, as rows of ours."""
    path = HERE / "slicegpt.json"
    if not path.exists():
        return []
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    return [
        {"subject": row["model"], "method": "slicegpt", "keep": row["keep"], "seed": row["seed"]}
        | {"share": row["share"], "scores": {name: row[name] for name in ("WikiText-2", "C4")}}
        for row in rows
    ]


class Results:
    """Damages by subject, method, budget and metric."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = [*rows, *slicegpt()]
        self.dense = {row["subject"]: row["scores"] for row in rows if row["method"] == "dense"}

    def subjects(self) -> list[str]:
        """Those whose dense model has been judged."""
        return list(self.dense)

    def of(self, subject: str) -> list[Row]:
        """All rows of narrowed models."""
        return [row for row in self.rows if row["subject"] == subject and row["method"] != "dense"]

    def budgets(self, subject: str) -> list[float]:
        """From the largest to the smallest."""
        return sorted({row["keep"] for row in self.of(subject)}, reverse=True)

    def methods(self, subject: str) -> list[str]:
        """Those that were run, in the order of ORDER."""
        run = {row["method"] for row in self.of(subject)}
        return [*(name for name in ORDER if name in run), *sorted(run - set(ORDER))]

    def damages(self, subject: str, method: str, keep: float, metric: str) -> list[float]:
        """One for each seed, ascending."""
        dense = self.dense[subject][metric]
        decoder = "C4" in self.dense[subject]
        damage: Callable[[float], float] = (lambda x: log(x / dense)) if decoder else (lambda x: dense - x)
        return sorted(
            damage(row["scores"][metric])
            for row in self.of(subject)
            if (row["method"], row["keep"]) == (method, keep)
        )

    def middle(self, subject: str, method: str, keep: float, metric: str) -> float | None:
        """The median over the seeds; None where nothing was run."""
        found = self.damages(subject, method, keep, metric)
        return median(found) if found else None

    def in_readme(self) -> list[tuple[str, str]]:
        """Subjects and metrics of which README.md has the tables."""
        named = [("wiki-llama-7m", metric) for metric in ("WikiText-2", "C4")]
        return [each for each in [*named, *_tasks(self)] if each[0] in self.dense]

    def best_stat(self, subject: str, keep: float, metric: str) -> float | None:
        """STAT's at its better allocation."""
        both = [self.middle(subject, f"stat, {rule}", keep, metric) for rule in ("published", "uniform")]
        found = [each for each in both if each is not None]
        return min(found) if found else None


def matrix(results: Results, subject: str) -> str:
    """One table a metric."""
    parts = [
        f"### {subject}, {metric}; dense {dense:.2f}\n\n{damage_table(results, subject, metric)}"
        for metric, dense in results.dense[subject].items()
        if results.of(subject)
    ]
    return "\n\n".join(parts)


def damage_table(results: Results, subject: str, metric: str) -> str:
    """Methods down, budgets across; median (least to most) over the seeds."""
    budgets, lines = results.budgets(subject), []
    for method in results.methods(subject):
        found = [results.damages(subject, method, keep, metric) for keep in budgets]
        cells = [_cell(each, 4 if metric in ("WikiText-2", "C4") else 2) for each in found]
        shares = [row["share"] for row in results.of(subject) if row["method"] == method]
        lines.append([method, *cells, f"{min(shares):.3f}-{max(shares):.3f}"])
    return table(["method", *(f"{keep:g}" for keep in budgets), "shares"], lines)


def divergences(results: Results, subject: str) -> str:
    """One table: methods down, budgets and texts across; median (least to most) over the seeds."""
    rows = [row for row in results.of(subject) if row.get("divergence")]
    if not rows:
        return ""
    names = list(rows[0]["divergence"])
    columns = [(keep, name) for keep in results.budgets(subject) for name in names]
    lines = []
    run = {row["method"] for row in rows}
    for method in (each for each in results.methods(subject) if each in run):
        of = [row for row in rows if row["method"] == method]
        found = [[row["divergence"][name] for row in of if row["keep"] == keep] for keep, name in columns]
        lines.append([method, *(_cell(sorted(each), 5) for each in found)])
    head = ["method", *(f"{keep:g}, {name}" if len(names) > 1 else f"{keep:g}" for keep, name in columns)]
    return f"### {subject}\n\n{table(head, lines)}"


def _cell(found: list[float], digits: int) -> str:
    if not found:
        return ""
    spread = f" ({found[0]:.{digits}f} to {found[-1]:.{digits}f})" if len(found) > 1 else ""
    return f"{median(found):.{digits}f}{spread}"


def goals(results: Results) -> str:
    """The issue's goals, one line each, with what was reached."""
    lines = []
    for keep, most in ((0.875, 0.35), (0.75, 0.35), (0.625, 0.35), (0.5, 0.5)):
        for metric in ("WikiText-2", "C4"):
            lines.append(_ratio(results, "wiki-llama-7m", keep, metric, most))
    for subject in DECODERS:
        for metric in ("WikiText-2", "C4"):
            lines.append(_below_all(results, subject, metric, "ours"))
            lines.append(_below_all(results, subject, metric, "ours, uniform"))
    lines += [_encoders(results, keep, most) for keep, most in ((0.6, 0.3), (0.5, 0.5))]
    for method in ("ours", "ours, uniform"):
        lines += [_encoders_below_all(results, keep, method) for keep in (0.6, 0.5)]
    return table(["goal", "reached", "met"], [line for line in lines if line])


def _ratio(results: Results, subject: str, keep: float, metric: str, most: float) -> list[str]:
    ours, theirs = results.middle(subject, "ours", keep, metric), results.best_stat(subject, keep, metric)
    if ours is None or theirs is None:
        return []
    ratio = ours / theirs if theirs > 0 else float("inf")
    told = f"{ours:.4f} / {theirs:.4f} = {ratio:.2f}"
    return [f"{subject}, {metric}, keep {keep:g}: at most {most:g} of stat's", told, _yes(ratio <= most)]


UNIFORM = ("random", "magnitude", "wanda-sp", "least-squares", "mask-tuning", "stat, uniform")


def _others(method: str) -> tuple[str, ...]:
    return UNIFORM if method != "ours" else (*UNIFORM, "stat, published", "flap", "slicegpt")


def _peers(method: str) -> str:
    return "every other method" if method == "ours" else "every other uniform method"


def _below_all(results: Results, subject: str, metric: str, method: str) -> list[str]:
    lost, missing = [], 0
    for keep in results.budgets(subject):
        ours = results.middle(subject, method, keep, metric)
        for other in _others(method):
            theirs = results.middle(subject, other, keep, metric)
            missing += ours is None or theirs is None
            if ours is not None and theirs is not None and theirs <= ours:
                lost.append(f"{other} at {keep:g} ({theirs:.4f} against {ours:.4f})")
    told = "; ".join([*lost, *([f"{missing} cells not run"] if missing else [])]) or "yes"
    met = "open" if missing and not lost else _yes(not lost)
    return [f"{subject}, {metric}: {method} below {_peers(method)}", told, met]


def _encoders(results: Results, keep: float, most: float) -> list[str]:
    pairs = [
        (results.middle(subject, "ours", keep, metric), results.best_stat(subject, keep, metric))
        for subject, metric in _tasks(results)
    ]
    whole = [(a, b) for a, b in pairs if a is not None and b is not None]
    goal = f"encoders, keep {keep:g} of MACs: at most {most:g} of stat's, over four tasks"
    if len(whole) < len(TASKS):
        return [goal, f"run for {len(whole)} of {len(TASKS)} tasks", "open"]
    ours, theirs = (sum(each) / len(whole) for each in zip(*whole, strict=True))
    return [goal, f"{ours:.2f} / {theirs:.2f} points", _yes(ours <= most * theirs)]


def _encoders_below_all(results: Results, keep: float, method: str) -> list[str]:
    goal = f"encoders, keep {keep:g} of MACs: {method} below {_peers(method)}, mean of four tasks"
    found = {}
    for each in (method, *_others(method)):
        lost = [results.middle(subject, each, keep, metric) for subject, metric in _tasks(results)]
        known = [points for points in lost if points is not None]
        if len(known) == len(TASKS):
            found[each] = sum(known) / len(TASKS)
    if method not in found or len(found) < 3:
        return [goal, "not run for all four tasks", "open"]
    ours = found.pop(method)
    nearest = min(found, key=lambda each: found[each])
    told = f"{ours:.2f}; the nearest of {len(found)} is {nearest}, {found[nearest]:.2f}"
    return [goal, told, _yes(ours < found[nearest])]


def _tasks(results: Results) -> list[tuple[str, str]]:
    """Subject and metric of the four tasks, as far as their dense model has been judged."""
    named = ((f"MiniLM {task}", METRICS[task]) for task in TASKS)
    return [(subject, metric) for subject, metric in named if subject in results.dense]


def _yes(met: bool) -> str:
    return "yes" if met else "**no**"


def write_report(rows: Sequence[Row]) -> None:
    """RESULTS.md from the rows that are there."""
    results = Results(rows)
    protocols = [
        f"- {row['subject']}: " + "; ".join(f"{key}: {value}" for key, value in row["protocol"].items())
        for row in rows
        if row["method"] == "dense"
    ]
    sections = [
        "# Quality of pruned models, method by method",
        "Made by `python -m benchmarks.quality`. Damage is ln(perplexity / dense) for decoders and "
        "points lost for encoders; cells are the median over three seeds (least to most). The seed draws "
        "the calibration samples. Cells that are empty have not been run; the command runs what is missing.",
        "## Goals",
        goals(results),
        "## Damage",
        *(matrix(results, subject) for subject in results.subjects()),
        "## Divergence",
        "How far outputs are from the dense model's on held-out data, in nats (`divergence.py`). Labels play "
        "no part, so it tells what a method changes; damage also tells whether the change happens to help.",
        *filter(None, (divergences(results, subject) for subject in results.subjects())),
        "## Protocol",
        "\n".join([*protocols, *(f"- {key}: {value}" for key, value in conditions().items())]),
    ]
    for name in ("ablation.md", "within-heads.md", "cost.md", "more-data.md", "missed.md"):
        if (HERE / name).exists():
            sections.insert(-2, (HERE / name).read_text(encoding="utf-8").strip())
    (HERE / "RESULTS.md").write_text("\n\n".join(sections) + "\n", encoding="utf-8")
    before, rest = README.read_text(encoding="utf-8").split(MARKS[0])
    tables = [readme_table(results, *named) for named in results.in_readme()]
    behind = rest.split(MARKS[1])[1]
    README.write_text(
        before + MARKS[0] + "\n".join(f"{each}\n" for each in tables) + MARKS[1] + behind, encoding="utf-8"
    )


def readme_table(results: Results, subject: str, metric: str) -> str:
    """Under a title, with the command that makes it."""
    dense = results.dense[subject][metric]
    title = f"**{subject}, {metric}**, dense {dense:.2f}. `python -m benchmarks.quality`"
    return f"{title}\n\n{damage_table(results, subject, metric)}"
