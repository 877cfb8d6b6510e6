"""`statprune report`."""

from pathlib import Path
from typing import Annotated

import typer

import statprune
from statprune.byte_size import byte_size
from statprune.cli.options import Debug, Json
from statprune.cli.show import as_json, say


def report_command(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR...",
            help="What compress or plan has written; several runs are compared.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="The page to write.", show_default="report.html in DIR; of several none"),
    ] = None,
    figures: Annotated[
        Path | None, typer.Option(help="A new folder for the figures as SVG and PNG.", show_default="none")
    ] = None,
    debug: Debug = False,
    json: Json = False,
) -> None:
    """Write one HTML page of what a run did and cost, or of several side by side; works without a network."""
    written = statprune.report(*folders, out=out, figures=figures)
    if json:
        as_json(written.to_json())
        return
    say(f"{written.out}: {byte_size(written.bytes)}, {written.charts} charts.")
    if written.figures is not None:
        say(f"{written.figures}: {len(written.files)} figures.")
