"""Charts of one run: what is left, quality, speed, damage, trials, time and memory."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from statprune.reported.drawing import BLUE, GONE, INK, VERMILLION, Chart, Table, axes, chart
from statprune.reported.facts import Pair, maps
from statprune.reported.wording import at, number, percent, plain, seconds, short, size, told

ROW = 38.0
"""Points that a bar and its label take."""


def bars(
    name: str,
    title: str,
    x: str,
    rows: Sequence[tuple[str, Sequence[tuple[float | None, str, str]]]],
    says: str,
    table: Table,
) -> Chart:
    """Bars lying down, each row a label with its bars below: value, colour, and the value in words."""
    most = max((value or 0.0 for _, each in rows for value, _, _ in each), default=0.0) or 1.0
    deepest = max(len(each) for _, each in rows)
    drawn = axes(title, 62 + len(rows) * (ROW + 15 * (deepest - 1)), x)
    step = 1.45 + 0.75 * (deepest - 1)
    for row, (label, each) in enumerate(rows):
        top = row * step
        drawn.text(0, top, short(label, 46), va="center", ha="left")
        for line, (value, colour, words) in enumerate(each):
            place = top + 0.64 + 0.75 * line
            drawn.barh(place, value or 0.0, height=0.6, color=colour)
            drawn.text((value or 0.0) + most * 0.015, place, words, va="center", ha="left", fontsize=10.5)
    drawn.set_xlim(0, most * 1.42)
    drawn.set_ylim(len(rows) * step - 0.1, -0.5)
    drawn.set_yticks([])
    drawn.grid(False)
    drawn.locator_params(axis="x", nbins=5)
    return chart(name, says, drawn, table)


def remaining(pairs: Sequence[Pair]) -> list[Chart]:
    """What is left of sizes and times, in per cent of the dense model."""
    known = [pair for pair in pairs if pair.share is not None and pair.better < 0]
    if not known:
        return []
    rows = [(pair.name, [(100 * (pair.share or 0), BLUE, percent(pair.share))]) for pair in known]
    table = Table(
        "What is left of the dense model", ["", "left"], [[pair.name, percent(pair.share)] for pair in known]
    )
    says = ", ".join(f"{pair.name} {percent(pair.share)}" for pair in known)
    return [bars("left", "What is left of the dense model", "per cent of the dense model", rows, says, table)]


def beside(name: str, title: str, pairs: Sequence[Pair]) -> list[Chart]:
    """Dense and pruned bars of numbers, a chart for each unit."""
    known = [pair for pair in pairs if pair.dense is not None or pair.kept is not None]
    charts = []
    by_unit = groupby(sorted(known, key=lambda pair: pair.unit), key=lambda pair: pair.unit)
    for position, (unit, group) in enumerate(by_unit):
        of_unit = list(group)
        rows = [
            (
                pair.name,
                [
                    (value, colour, f"{pair.show(value)} {who}")
                    for value, colour, who in ((pair.dense, GONE, "dense"), (pair.kept, BLUE, "pruned"))
                    if value is not None
                ],
            )
            for pair in of_unit
        ]
        direction = {-1: ", less is better", 1: ", more is better"}.get(of_unit[0].better, "")
        table = Table(title, ["", "dense", "pruned", "change"], [pair.row for pair in of_unit])
        says = "; ".join(
            f"{pair.name} dense {pair.show(pair.dense)}, pruned {pair.show(pair.kept)}" for pair in of_unit
        )
        axis = f"{short(unit, 30)}{direction}"
        charts.append(bars(f"{name}-{position}", title, axis, rows, says, table))
    return charts


def damage_chart(pair: Pair) -> list[Chart]:
    """Damage predicted and measured, side by side."""
    if pair.dense is None and pair.kept is None:
        return []
    rows = [
        (name, [(value, colour, plain(value))])
        for name, value, colour in (
            ("predicted from single sites", pair.dense, VERMILLION),
            ("measured", pair.kept, BLUE),
        )
        if value is not None
    ]
    table = Table(
        "Damage", ["", pair.unit], [["predicted", plain(pair.dense)], ["measured", plain(pair.kept)]]
    )
    says = f"predicted {plain(pair.dense)}, measured {plain(pair.kept)} {pair.unit}"
    axis = f"{pair.unit}, less is better"
    return [bars("damage", "Damage, predicted and measured", axis, rows, says, table)]


def stages(trace: Any) -> list[Chart]:
    """Wall time and peak memory by stage."""
    found = []
    for name, title, axis, show, says in (
        ("seconds", "Time by stage", "seconds", seconds, "wall time"),
        ("memory", "Peak memory by stage", "bytes", size, "peak memory"),
    ):
        values = _stage_values(at(trace, name))
        if not values:
            continue
        unit, axis_name = _unit(max(values.values()), axis)
        rows = [(stage, [(value / unit, BLUE, show(value))]) for stage, value in values.items()]
        table = Table(title, ["stage", says], [[stage, show(value)] for stage, value in values.items()])
        told_of = ", ".join(f"{stage} {show(value)}" for stage, value in values.items())
        found.append(bars(f"stages-{name}", title, axis_name, rows, told_of, table))
    return found


def _stage_values(content: Any) -> dict[str, float]:
    values = content.items() if isinstance(content, Mapping) else ()
    return {stage: found for stage, value in values if (found := number(value)) is not None}


def _unit(most: float, of: str) -> tuple[float, str]:
    scales: dict[str, Sequence[tuple[float, str]]] = {
        "seconds": ((7200, "hours"), (300, "minutes")),
        "bytes": ((1e9, "GB"), (1e6, "MB")),
    }
    limit = {"hours": 3600.0, "minutes": 60.0}
    for least, name in scales[of]:
        if most >= least:
            return limit.get(name, least), name
    return 1.0, of


def gate_charts(gate: Any) -> list[Chart]:
    """The trials of a gate: how far the score fell at every share tried, with the limit."""
    trials = [each for each in maps(at(gate, "trials")) if number(at(each, "keep")) is not None]
    drawn_of = [each for each in trials if number(each.get("drop")) is not None]
    limit = number(at(gate, "max_drop"))
    if not drawn_of or limit is None:
        return []
    metric, unit = told(at(gate, "metric")), told(at(gate, "unit"))
    drawn = axes(
        "Trials of the gate",
        240,
        f"share of {told(at(gate, 'of'))} asked for, per cent",
        f"drop, {short(unit, 24)}",
    )
    drawn.axhline(limit, color=VERMILLION, linestyle="--")
    drawn.annotate(
        f"allowed: {limit:g}", (1, limit), xycoords=("axes fraction", "data"), va="bottom", ha="right"
    )
    for trial in drawn_of:
        chosen = trial.get("keep") == at(gate, "keep")
        drawn.plot(
            100 * trial["keep"],
            trial["drop"],
            marker="o" if trial.get("passes") else "X",
            markersize=12 if chosen else 8,
            color=BLUE if trial.get("passes") else VERMILLION,
            markeredgecolor=INK if chosen else "none",
            markeredgewidth=2,
            linestyle="none",
        )
        if chosen:
            drawn.annotate(
                "chosen",
                (100 * trial["keep"], trial["drop"]),
                (0, -20),
                textcoords="offset points",
                ha="center",
            )
    drawn.margins(0.15, 0.25)
    rows = [
        [
            f"{trial['keep']:g}",
            percent(number(trial.get("share"))),
            plain(number(trial.get("score"))),
            plain(number(trial.get("drop"))),
            "chosen" if trial["keep"] == at(gate, "keep") else "yes" if trial.get("passes") else "no",
            plain(number(trial.get("predicted"))),
            seconds(number(trial.get("seconds"))),
        ]
        for trial in trials
    ]
    columns = ["keep", "share kept", metric, "drop", "within", "predicted damage", "time"]
    says = (
        f"{len(trials)} models tried; {metric} may fall by {limit:g} {unit}, circles are within, crosses not"
    )
    return [chart("gate", says, drawn, Table("Trials, in the order in which they were made", columns, rows))]
