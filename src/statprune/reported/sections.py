"""What pages are made of, and what several of them say alike."""

from collections.abc import Sequence
from dataclasses import dataclass

from statprune.reported import network
from statprune.reported.drawing import Chart, Table
from statprune.reported.sites import Cut


@dataclass(frozen=True)
class Tile:
    """One number to be seen first."""

    name: str
    value: str
    says: str


@dataclass(frozen=True)
class Section:
    """A part of a page; every field but the first two may be empty.

    Attributes:
        name: its anchor.
        title: its heading.
        says: paragraphs.
        commands: what to type, each with what it is for.
        facts: names and values.
        tables: seen.
        charts: with their numbers folded.
        folded: longer texts, each with its name.
        listed: points of a list.
    """

    name: str
    title: str
    says: Sequence[str] = ()
    commands: Sequence[tuple[str, str]] = ()
    facts: Sequence[tuple[str, str]] = ()
    tables: Sequence[Table] = ()
    charts: Sequence[Chart] = ()
    folded: Sequence[tuple[str, str]] = ()
    listed: Sequence[str] = ()


@dataclass(frozen=True)
class Page:
    """A page: title, what it is in a sentence or two, numbers to be seen first, and sections."""

    title: str
    says: Sequence[str]
    tiles: Sequence[Tile]
    sections: Sequence[Section]

    @property
    def charts(self) -> list[Chart]:
        """All of them, in order."""
        return [each for section in self.sections for each in section.charts]


def curves_section(found: Sequence[Cut], *, marked: bool) -> Section:
    """Error against width, site by site."""
    drawn = network.curves(found)
    title = "Error against width"
    if not drawn:
        return Section(
            "curves",
            title,
            [
                "Curves are not recorded: the run was given its widths, or an earlier version has written "
                "the record."
            ],
        )
    says = [
        "Error of a site's output, relative to the output, if its best units are kept and the next weights "
        "fitted again: at 1 nothing of it is left, and lower is better. All charts have the same axes."
        + (" The marker is the width that was chosen." if marked else "")
    ]
    return Section("curves", title, says, charts=drawn)
