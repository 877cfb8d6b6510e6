"""Several runs side by side: one table, quality against size, widths by block."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from statprune.reported.drawing import DASHES, INK, MARKERS, SERIES, Chart, Table, axes, chart
from statprune.reported.facts import Pair, Show, damage, quality, sizes, speed
from statprune.reported.network import number_blocks
from statprune.reported.reading import Left
from statprune.reported.sections import Page, Section
from statprune.reported.sites import Cut, cuts, part_names
from statprune.reported.wording import MISSING, at, headed, number, percent, plain, short, told

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Point:
    """One run in a chart: its place among the runs, name, share of parameters kept, and what was measured."""

    place: int
    label: str
    share: float
    value: float
    show: Show


def compare_page(runs: Sequence[Left]) -> Page:
    """The page of several runs; to be called where `drawing.style` holds."""
    names = _names(runs)
    found = [cuts(run) for run in runs]
    made = [
        Section("side-by-side", "Side by side", _differences(runs), tables=[_table(runs, names)]),
        _quality(runs, names),
        Section(
            "widths",
            "Widths by block",
            ["Units kept of those that the model had, in per cent."],
            charts=_widths(found, names),
        ),
        Section(
            "runs", "The runs", facts=[(name, _told(run)) for name, run in zip(names, runs, strict=True)]
        ),
    ]
    return Page(f"{len(runs)} runs compared", [", ".join(names)], (), made)


def _names(runs: Sequence[Left]) -> list[str]:
    """Folder names; numbered where two are the same."""
    labels = [run.label for run in runs]
    return [
        f"{label} ({labels[: place + 1].count(label)})" if labels.count(label) > 1 else label
        for place, label in enumerate(labels)
    ]


def _told(run: Left) -> str:
    recipe = at(run.record, "recipe")
    options = [
        f"{name} {told(recipe[name])}"
        for name in ("method", "keep", "of", "widths", "seed")
        if at(recipe, name) is not None
    ]
    return f"{told(run.record.get('model'))}: {', '.join(options)}; {told(at(run.record, 'plan', 'why'))}"


def _differences(runs: Sequence[Left]) -> list[str]:
    """What makes numbers of these runs hard to compare."""
    says = []
    for name, path in (("models", ("model",)), ("calibration data", ("data", "source", "source"))):
        values = {told(at(run.record, *path)).rpartition("/")[2] for run in runs}
        if len(values) > 1:
            says.append(f"The runs are of different {name}: {'; '.join(sorted(values))}.")
    return says


def _table(runs: Sequence[Left], names: Sequence[str]) -> Table:
    rows = [
        ["model", *(told(run.record.get("model")) for run in runs)],
        ["method", *(told(at(run.record, "recipe", "method")) for run in runs)],
    ]
    rows += _pair_rows([sizes(run) for run in runs], _with_share)
    rows += _pair_rows([quality(run) for run in runs], _with_change)
    damages = [damage(run) for run in runs]
    for unit in dict.fromkeys(pair.unit for pair in damages):
        of_unit = [(pair.dense, pair.kept) if pair.unit == unit else (None, None) for pair in damages]
        rows.append([f"damage predicted, {unit}", *(plain(predicted) for predicted, _ in of_unit)])
        rows.append([f"damage measured, {unit}", *(plain(measured) for _, measured in of_unit)])
    rows += _pair_rows([speed(run) for run in runs], _with_ratio)
    return Table("The pruned models side by side", ["", *names], rows)


def _pair_rows(of_runs: Sequence[Sequence[Pair]], show: Callable[[Pair], str]) -> list[list[str]]:
    """A row for each number that any run has; numbers by different protocols have rows of their own."""
    by_key = [{pair.key or pair.name: pair for pair in pairs} for pairs in of_runs]
    keys = dict.fromkeys(key for pairs in by_key for key in pairs)
    names = {key: next(pairs[key].name for pairs in by_key if key in pairs) for key in keys}
    taken: dict[str, int] = {}
    rows = []
    for key in keys:
        taken[names[key]] = taken.get(names[key], 0) + 1
        other = f", protocol {taken[names[key]]}" if taken[names[key]] > 1 else ""
        rows.append(
            [names[key] + other, *(show(pairs[key]) if key in pairs else MISSING for pairs in by_key)]
        )
    return rows


def _with_share(pair: Pair) -> str:
    share = "" if pair.share is None else f" ({percent(pair.share)})"
    return pair.show(pair.kept) + share


def _with_change(pair: Pair) -> str:
    return pair.show(pair.kept) + (f" ({pair.change})" if pair.change else "")


def _with_ratio(pair: Pair) -> str:
    return pair.show(pair.kept) + ("" if pair.share is None else f" ({pair.share:.2f} x dense)")


def _quality(runs: Sequence[Left], names: Sequence[str]) -> Section:
    of_runs = [{pair.key: pair for pair in quality(run) if pair.kept is not None} for run in runs]
    keys = dict.fromkeys(key for pairs in of_runs for key in pairs)
    drawn = [
        _against_size(f"quality-{place}", runs, names, [pairs.get(key) for pairs in of_runs])
        for place, key in enumerate(keys)
    ]
    drawn += _damage_against_size(runs, names)
    says = [] if keys else ["No evaluation of these runs is recorded; damage stands in its place."]
    commands = (
        [] if keys else [("an evaluation is added by", "statprune evaluate DIR --data SOURCE --record DIR")]
    )
    return Section("quality", "Quality against size", says, commands, charts=drawn)


def _share(run: Left) -> float | None:
    whole, kept = number(at(run.record, "parameters", "dense")), number(at(run.record, "parameters", "kept"))
    if whole and kept is not None:
        return kept / whole
    return number(at(run.record, "cost", "params", "share"))


def _size_axis(runs: Sequence[Left]) -> str:
    whole = all(number(at(run.record, "parameters", "dense")) for run in runs)
    return "parameters kept, per cent" if whole else "parameters kept in blocks, per cent"


def _against_size(
    name: str, runs: Sequence[Left], names: Sequence[str], pairs: Sequence[Pair | None]
) -> Chart:
    first = next(pair for pair in pairs if pair is not None)
    better = {-1: ", less is better", 1: ", more is better"}.get(first.better, "")
    points = [
        Point(place, names[place], share, pair.kept, pair.show)
        for place, (run, pair) in enumerate(zip(runs, pairs, strict=True))
        if pair is not None and pair.kept is not None and (share := _share(run)) is not None
    ]
    dense = next((pair.dense for pair in pairs if pair is not None and pair.dense is not None), None)
    title = headed(first.name)
    y = f"{short(first.unit, 30)}{better}"
    return _scatter(name, title, (_size_axis(runs), y), points, dense)


def _damage_against_size(runs: Sequence[Left], names: Sequence[str]) -> list[Chart]:
    """A chart for each unit that damage is counted in."""
    points: dict[str, list[Point]] = {}
    for place, run in enumerate(runs):
        pair = damage(run)
        if pair.kept is not None and (share := _share(run)) is not None:
            points.setdefault(pair.unit, []).append(Point(place, names[place], share, pair.kept, plain))
    return [
        _scatter(
            f"damage-{place}" if place else "damage",
            "Damage measured",
            (_size_axis(runs), f"{unit}, less is better"),
            of_unit,
            None,
        )
        for place, (unit, of_unit) in enumerate(points.items())
    ]


def _scatter(
    name: str,
    title: str,
    labels: tuple[str, str],
    points: Sequence[Point],
    dense: float | None,
) -> Chart:
    drawn = axes(short(title, 32), 250 + 16 * len(points), *labels)
    for point in points:
        look = _look(point.place)
        drawn.plot(
            100 * point.share,
            point.value,
            linestyle="none",
            markersize=10,
            label=short(point.label, 40),
            **look,
        )
    if dense is not None:
        drawn.axhline(dense, color=INK, linestyle=":", linewidth=1.2)
        drawn.annotate("dense", (1, dense), xycoords=("axes fraction", "data"), va="bottom", ha="right")
    drawn.margins(0.12, 0.2)
    _legend_below(drawn)
    rows = [[point.label, percent(point.share), point.show(point.value)] for point in points]
    if dense is not None:
        rows.append(["dense", "100.0%", plain(dense)])
    says = ", ".join(f"{row[0]} {row[2]} at {row[1]}" for row in rows)
    return chart(name, says, drawn, Table(title, ["run", "size", labels[1]], rows))


def _look(place: int) -> dict[str, Any]:
    return {"color": SERIES[place % len(SERIES)], "marker": MARKERS[place % len(MARKERS)]}


def _legend_below(drawn: "Axes") -> None:
    drawn.figure.legend(loc="outside lower left", labelcolor=INK)


def _widths(found: Sequence[Sequence[Cut]], names: Sequence[str]) -> list[Chart]:
    parts = dict.fromkeys(cut.part for run in found for cut in run)
    return [_widths_of(part, found, names) for part in parts]


def _widths_of(part: str, found: Sequence[Sequence[Cut]], names: Sequence[str]) -> Chart:
    name, unit = part_names(part)
    blocks = list(dict.fromkeys(cut.block for run in found for cut in run if cut.part == part))
    title = f"{name.capitalize()}: {unit} kept"
    drawn = axes(title, 250 + 16 * len(names), "", "units kept, per cent")
    columns = []
    for place, run in enumerate(found):
        of_part = {cut.block: cut for cut in run if cut.part == part}
        columns.append([_width(of_part.get(block)) for block in blocks])
        pairs = [(blocks.index(block), 100 * (cut.share or 0)) for block, cut in of_part.items()]
        if pairs:
            drawn.plot(
                *zip(*pairs, strict=True),
                label=short(names[place], 40),
                linestyle=DASHES[place % len(DASHES)],
                markersize=6,
                **_look(place),
            )
    number_blocks(drawn, blocks)
    drawn.set_ylim(0, 104)
    _legend_below(drawn)
    rows = [[block, *row] for block, row in zip(blocks, zip_longest(*columns, fillvalue=""), strict=True)]
    says = f"{len(names)} runs over {len(blocks)} blocks"
    return chart(f"widths-{part.replace('_', '-')}", says, drawn, Table(title, ["block", *names], rows))


def _width(cut: Cut | None) -> str:
    return "" if cut is None else f"{cut.width:,} of {cut.units:,}"
