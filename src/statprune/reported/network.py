"""Charts of the network: what is kept, block by block, and the error of every width."""

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from statprune.reported.drawing import (
    BLUE,
    GONE,
    GREEN,
    INK,
    PAPER,
    PURPLE,
    VERMILLION,
    Chart,
    Table,
    axes,
    chart,
)
from statprune.reported.sites import Cut, blocks, part_names
from statprune.reported.wording import MISSING, percent, plain, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {"attention": BLUE, "feed_forward": VERMILLION, "cross_attention": GREEN, "experts": PURPLE}
MARKERS = {"attention": "o", "feed_forward": "s", "cross_attention": "D", "experts": "^"}
MOST_CELLS = 64
"""Units that are drawn one by one; more are drawn as a bar."""
MOST_ROWS = 4096
"""Rows of numbers that the curves' tables share: a page stays readable, and small."""


def picture(cuts: Sequence[Cut]) -> list[Chart]:
    """A chart for each part: its units in every block, those kept filled."""
    return [
        _part(part, [cut for cut in cuts if cut.part == part])
        for part in dict.fromkeys(cut.part for cut in cuts)
    ]


def _part(part: str, cuts: Sequence[Cut]) -> Chart:
    name, unit = part_names(part)
    most = max(cut.units for cut in cuts)
    title = f"{name.capitalize()}: {unit} kept"
    drawn = axes(title, 76 + 17 * len(cuts), unit)
    for row, cut in enumerate(cuts):
        _row(drawn, row, cut, COLOURS.get(part, BLUE))
        drawn.text(most * 1.02, row, f"{cut.width:,} of {cut.units:,}", va="center", ha="left", fontsize=10)
    drawn.set_yticks(range(len(cuts)), [short(cut.block, 18) for cut in cuts])
    drawn.set_ylim(len(cuts) - 0.4, -0.6)
    drawn.set_xlim(0, most * 1.34)
    drawn.tick_params(axis="y", length=0)
    drawn.grid(False)
    drawn.spines["left"].set_visible(False)
    drawn.set_xticks([0, most], ["0", f"{most:,}"])
    kept, all_units = sum(cut.width or 0 for cut in cuts), sum(cut.units for cut in cuts)
    share = percent(kept / max(all_units, 1))
    says = f"{kept:,} of {all_units:,} are kept, {share}; filled is kept, grey removed"
    rows = [[cut.block, f"{cut.width:,}", f"{cut.units:,}", percent(cut.share), _listed(cut)] for cut in cuts]
    columns = ["block", "kept", "of", "share", f"which {unit}"]
    if all(row[-1] == "" for row in rows):
        rows, columns = [row[:-1] for row in rows], columns[:-1]
    return chart(f"network-{_slug(part)}", says, drawn, Table(title, columns, rows))


def _row(drawn: "Axes", row: int, cut: Cut, colour: str) -> None:
    low, height = row - 0.34, 0.68
    drawn.broken_barh([(0, cut.units)], (low, height), color=GONE, linewidth=0)
    if cut.units > MOST_CELLS or cut.kept is None:
        drawn.broken_barh([(0, cut.width or 0)], (low, height), color=colour, linewidth=0)
        return
    drawn.broken_barh(_runs(cut.kept), (low, height), color=colour, linewidth=0)
    if cut.units > 1:
        drawn.vlines(range(1, cut.units), low, low + height, color=PAPER, linewidth=1.2)


def _runs(kept: Sequence[int]) -> list[tuple[float, float]]:
    """Neighbours as one, (start, length)."""
    found = []
    for _, group in groupby(enumerate(sorted(kept)), key=lambda pair: pair[1] - pair[0]):
        members = [unit for _, unit in group]
        found.append((float(members[0]), float(len(members))))
    return found


def _listed(cut: Cut) -> str:
    if cut.kept is None or cut.units > MOST_CELLS:
        return ""
    return ", ".join(str(unit) for unit in cut.kept)


def curves(cuts: Sequence[Cut]) -> list[Chart]:
    """Error against width: a chart for each block, with a curve for each of its sites."""
    known = [cut for cut in cuts if cut.curve is not None]
    most = max(9, MOST_ROWS // max(len(known), 1))
    return [
        _block(number, block, of_block, most)
        for number, (block, of_block) in enumerate(blocks(known).items())
    ]


def _block(number: int, block: str, cuts: Sequence[Cut], most: int) -> Chart:
    drawn = axes(short(block, 30), 290, "units kept, per cent", "relative error", alike=True)
    told = []
    for cut in cuts:
        name = part_names(cut.part)[0]
        error, _ = cut.chosen
        label = name if cut.width is None else f"{name}: {cut.width:,} of {cut.units:,}"
        colour, shares, errors = COLOURS.get(cut.part, INK), *_points(cut, most)
        drawn.plot(shares, errors, color=colour, label=short(label, 40), linestyle=_dash(cut.part))
        if error is not None and cut.share is not None:
            drawn.plot(
                100 * cut.share,
                error,
                color=colour,
                marker=MARKERS.get(cut.part, "o"),
                markersize=9,
                markeredgecolor=INK,
                markeredgewidth=1.5,
                linestyle="none",
                clip_on=False,
                zorder=5,
            )
        told.append(label if error is None else f"{label}, error {plain(error)}")
    drawn.set_ylim(0, 1.04)
    drawn.set_xlim(0, 103)
    drawn.legend(loc="upper left", bbox_to_anchor=(-0.18, -0.24), labelcolor=INK, borderaxespad=0)
    return chart(f"curve-{number}", "; ".join(told), drawn, _numbers(block, cuts, most))


def _points(cut: Cut, most: int) -> tuple[list[float], list[float]]:
    if cut.curve is None:
        return [], []
    pairs = list(zip(cut.curve.units, cut.curve.error, strict=True))
    kept = _thinned(len(pairs), most)
    return (
        [100 * pairs[each][0] / max(cut.units, 1) for each in kept],
        [pairs[each][1] for each in kept],
    )


def _numbers(block: str, cuts: Sequence[Cut], most: int) -> Table:
    damaged = any(cut.curve and cut.curve.damage for cut in cuts)
    rows = []
    for cut in cuts:
        curve = cut.curve
        if curve is None:
            continue
        places = set(_thinned(len(curve.units), most))
        for place, width in enumerate(curve.units):
            if place in places or width == cut.width:
                mark = " (chosen)" if width == cut.width else ""
                row = [
                    f"{part_names(cut.part)[0]} {width:,} of {cut.units:,}{mark}",
                    plain(curve.error[place]),
                ]
                rows.append(
                    [*row, *([plain(curve.damage[place]) if curve.damage else MISSING] if damaged else [])]
                )
    columns = ["units kept", "relative error", *(["predicted damage"] if damaged else [])]
    return Table(f"Error against width, {block}", columns, rows)


def _thinned(points: int, most: int) -> list[int]:
    """Places of `most` points, evenly, both ends among them."""
    if points <= most:
        return list(range(points))
    return sorted({round(each * (points - 1) / (most - 1)) for each in range(most)})


def _dash(part: str) -> str:
    return {"feed_forward": "--", "experts": "-.", "cross_attention": ":"}.get(part, "-")


def _slug(text: str) -> str:
    return "".join(each if each.isascii() and each.isalnum() else "-" for each in text)


def damage_by_block(cuts: Sequence[Cut], unit: str) -> list[Chart]:
    """Predicted damage of every site at the width chosen, counted in `unit`, over the blocks."""
    known = [(cut, damage) for cut in cuts if (damage := cut.chosen[1]) is not None]
    if not known:
        return []
    names = list(dict.fromkeys(cut.block for cut in cuts))
    title = "Where the damage is expected"
    drawn = axes(title, 260, "", f"predicted damage, {unit}")
    for part in dict.fromkeys(cut.part for cut, _ in known):
        places = [(names.index(cut.block), damage) for cut, damage in known if cut.part == part]
        drawn.plot(
            *zip(*places, strict=True),
            color=COLOURS.get(part, INK),
            marker=MARKERS.get(part, "o"),
            linestyle=_dash(part),
            label=part_names(part)[0],
        )
    number_blocks(drawn, names)
    drawn.set_ylim(0, 1.25 * max(damage for _, damage in known) or 1)
    drawn.legend(loc="upper right", ncols=2, labelcolor=INK)
    worst = max(known, key=lambda pair: pair[1])
    says = f"most at {worst[0].site}: {plain(worst[1])} {unit}"
    rows = [[cut.site, f"{cut.width:,} of {cut.units:,}", plain(damage)] for cut, damage in known]
    return [chart("damage-blocks", says, drawn, Table(title, ["site", "kept", unit], rows))]


def number_blocks(drawn: "Axes", names: Sequence[str]) -> None:
    """Label the axis of blocks: by number where they are of one stack, else some by name."""
    stacks = {name.rpartition(".")[0] for name in names}
    one = len(stacks) == 1 and all(name.rpartition(".")[2].isdecimal() for name in names)
    step = max(1, -(-len(names) // (8 if one else 3)))
    labels = [name.rpartition(".")[2] if one else short(name, 12) for name in names[::step]]
    drawn.set_xticks(range(0, len(names), step), labels)
    drawn.set_xlabel("block")


def damage_by_share(cuts: Sequence[Cut], unit: str) -> list[Chart]:
    """Predicted damage, counted in `unit`, if every site kept the same share of its units."""
    known = [cut.curve for cut in cuts if cut.curve is not None and cut.curve.damage is not None]
    if not known:
        return []
    shares = [each / 20 for each in range(1, 21)]
    totals = [sum(_at_share(curve.units, curve.damage or (), share) for curve in known) for share in shares]
    title = "Damage against share"
    drawn = axes(title, 260, "units kept at every site, per cent", f"predicted damage, {unit}")
    drawn.plot([100 * share for share in shares], totals, color=BLUE, marker="o", markersize=4)
    drawn.set_xlim(0, 103)
    drawn.set_ylim(bottom=0)
    says = "if every site kept the same share of its units: a plan of least damage does no more"
    rows = [[percent(share), plain(total)] for share, total in zip(shares, totals, strict=True)]
    return [chart("damage-share", says, drawn, Table(title, ["units kept", unit], rows))]


def _at_share(units: Sequence[int], damage: Sequence[float], share: float) -> float:
    """Damage at the widest of the curve's points that keeps at most this share."""
    place = max((each for each, width in enumerate(units) if width <= share * units[-1]), default=0)
    return float(damage[place])
