"""Figures drawn once, then written: as SVG for a page, as SVG and PNG for a folder. No global state."""

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID, GONE, PAPER = "#1b1b1b", "#585858", "#dedede", "#c9c9c9", "#fefefe"
BLUE, VERMILLION, GREEN, PURPLE = "#0072b2", "#d55e00", "#009e73", "#cc79a7"
SERIES = (BLUE, VERMILLION, GREEN, PURPLE)
"""Of Okabe and Ito's colours those that stand out from white; shapes tell apart what shares one."""
VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    GRID: "grid",
    GONE: "gone",
    PAPER: "paper",
    BLUE: "blue",
    VERMILLION: "vermillion",
    GREEN: "green",
    PURPLE: "purple",
}
MARKERS, DASHES = "osD^vPX", ("-", "--", ":", "-.")

WIDTH = 290.0
"""Points; a figure fits into a telephone's page without shrinking."""

STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "statprune",
    "text.parse_math": False,
    "text.color": INK,
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.useoffset": False,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 10.5,
    "ytick.labelsize": 10.5,
    "legend.frameon": False,
    "legend.fontsize": 10.5,
    "figure.facecolor": "none",
    "lines.linewidth": 1.8,
    "path.simplify_threshold": 0.2,
}


@dataclass(frozen=True)
class Table:
    """Numbers as text; the first column names the rows."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, eq=False)
class Chart:
    """A figure, what it says, and its numbers.

    Attributes:
        name: of its files, and of its parts on the page; unique on a page.
        title: what is drawn.
        says: what a reader sees in it: its accessible name with the title.
        figure: as drawn.
        svg: the same as a file.
        table: the numbers that are drawn.
    """

    name: str
    title: str
    says: str
    figure: "Figure"
    svg: bytes
    table: Table


@contextmanager
def style() -> Iterator[None]:
    """Within it figures are drawn and written, whatever the user's own settings are; these come back."""
    import matplotlib  # noqa: PLC0415 - help and version do without, and start at once

    rules: dict[Any, Any] = {
        name: value for name, value in matplotlib.rcParamsDefault.items() if "backend" not in name
    }
    with matplotlib.rc_context(rules | STYLE), warnings.catch_warnings():
        # Of names in scripts that the PNG's font lacks; the SVG keeps the text.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def axes(title: str, height: float, x: str = "", y: str = "", *, alike: bool = False) -> "Axes":
    """Empty axes of a figure of its own, `height` points high, labelled with units.

    `alike`: at one place in every figure of the height, with room for a legend below; faster.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(WIDTH / 72, height / 72), layout=None if alike else "constrained")
    made = figure.add_axes((0.18, 90 / height, 0.79, 1 - 116 / height)) if alike else figure.add_subplot()
    made.set_title(title, loc="left")
    made.set_xlabel(x)
    made.set_ylabel(y)
    return made


def chart(name: str, says: str, drawn: "Axes", table: Table) -> Chart:
    """What was drawn, as a chart; its title is that of the axes."""
    figure = drawn.get_figure(root=True)
    if figure is None:
        raise ValueError(f"{name}: axes without a figure")
    file = BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None}, facecolor="none")
    return Chart(name, drawn.get_title(loc="left"), says, figure, file.getvalue(), table)


def png(of: Chart) -> bytes:
    """The figure as a picture on white."""
    file = BytesIO()
    of.figure.savefig(file, format="png", dpi=200, metadata={"Software": None}, facecolor="white")
    return file.getvalue()


_FRACTION = re.compile(r"-?\d+\.\d+")
_FONT = re.compile(r"font(-family)?:[^;]*;?\s*")
_COLOUR = re.compile("|".join(VARIABLES))


def inline(of: Chart) -> str:
    """The figure as a part of a page: small, coloured by the page's variables, with an accessible name."""
    svg = ElementTree.fromstring(of.svg)
    for parent in svg.iter():
        for child in list(parent):
            if child.tag.rpartition("}")[2] in ("metadata", "style"):
                parent.remove(child)
    for part in svg.iter():
        part.tag = part.tag.rpartition("}")[2]
        attributes = dict(part.attrib)
        part.attrib.clear()
        for name, value in attributes.items():
            kept = _attribute(part.tag, name.rpartition("}")[2], value, of.name)
            if kept:
                part.set(name.rpartition("}")[2], kept)
        part.text, part.tail = _stripped(part.text), _stripped(part.tail)
    svg.attrib = {
        "viewBox": svg.attrib["viewBox"],
        "role": "img",
        "aria-labelledby": f"{of.name}-title",
        "class": "chart",
    }
    svg[:] = [each for part in svg for each in _flat(part)]
    title = ElementTree.Element("title", {"id": f"{of.name}-title"})
    title.text = f"{of.title}: {of.says}"
    svg.insert(0, title)
    return ElementTree.tostring(svg, encoding="unicode")


def _attribute(tag: str, name: str, value: str, of: str) -> str:
    if name == "id":
        return "" if tag == "g" else f"{of}-{value}"
    if name == "href":
        return f"#{of}-{value.removeprefix('#')}"
    value = value.replace("url(#", f"url(#{of}-")
    if name == "style":
        value = _COLOUR.sub(lambda found: f"var(--{VARIABLES[found[0]]})", value)
        value = _size_alone(value) if tag == "text" else value
        value = value.replace(": ", ":").replace("; ", ";").removesuffix(";")
    if name == "transform" and value.startswith("rotate(-0 "):
        return ""
    value = _FRACTION.sub(lambda found: f"{float(found[0]):.2f}".rstrip("0").rstrip("."), value)
    return " ".join(value.split())


def _flat(part: ElementTree.Element) -> list[ElementTree.Element]:
    """A part without the groups that say nothing."""
    part[:] = [each for child in part for each in _flat(child)]
    empty = part.tag == "defs" and not len(part)
    return list(part) if empty or (part.tag == "g" and not part.attrib) else [part]


def _size_alone(style_of_text: str) -> str:
    """Without the family: that of the page."""
    found = re.search(r"([\d.]+)px", style_of_text)
    bold = "font-weight: bold; " if re.search(r"\b(bold|700)\b", style_of_text) else ""
    rest = _FONT.sub("", re.sub(r"font-(size|weight):[^;]*;?\s*", "", style_of_text))
    return f"font-size: {found[1] if found else '10'}px; {bold}{rest}".strip()


def _stripped(text: str | None) -> str | None:
    return text if text and text.strip() else None
