"""A page as HTML, and its figures as files."""

from pathlib import Path

from statprune.reported.drawing import inline, png
from statprune.reported.sections import Page
from statprune.version import __version__


def html(page: Page) -> str:
    """The page: one file, without scripts, that asks for nothing from elsewhere. All text is escaped.

    To be called where `drawing.style` holds.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415 - help does without
    from markupsafe import Markup  # noqa: PLC0415

    environment = Environment(
        loader=PackageLoader("statprune.reported"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    css = environment.loader.get_source(environment, "style.css")[0] if environment.loader else ""
    return environment.get_template("page.html.j2").render(
        page=page,
        css=Markup(css),
        svg=lambda chart: Markup(inline(chart)),
        version=__version__,
    )


def write_figures(page: Page, folder: Path) -> list[str]:
    """Every chart as NAME.svg and NAME.png into a folder that is there; their names."""
    names = []
    for chart in page.charts:
        for name, content in ((f"{chart.name}.svg", chart.svg), (f"{chart.name}.png", png(chart))):
            (folder / name).write_bytes(content)
            names.append(name)
    return names
