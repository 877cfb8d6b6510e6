"""`statprune explore`."""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from statprune.cli.options import Debug, Entry, Json, register_entries
from statprune.cli.show import as_json, quieten_libraries, say
from statprune.errors import InputError


def explore_command(
    measured: Annotated[
        Path, typer.Argument(help="A folder that `statprune plan --out` made.", show_default=False)
    ],
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1; 0 takes a free one.", min=0, max=65535)] = 0,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Open no browser; print the address.")
    ] = False,
    entry: Entry = None,
    debug: Debug = False,
    json: Json = False,
) -> None:
    """Look at any budget of a measurement on a page of this machine, and compress from there."""
    if find_spec("gradio") is None:
        raise InputError(
            "the page needs the library gradio, which is not installed. "
            "Install it with `pip install 'statprune[explore]'`."
        )
    quieten_libraries()
    register_entries(entry)
    from statprune.explore.choices import opened  # noqa: PLC0415 - help does without torch and gradio

    explored = opened(measured, entry or ())
    from statprune.explore.server import serve  # noqa: PLC0415 - the folder is looked at first

    def ready(url: str) -> None:
        if json:
            as_json({"url": url})
        else:
            say(f"{url} on this machine alone; Ctrl-C ends it.")
        sys.stdout.flush()  # whoever waits for the address may read a pipe

    for line in serve(explored, port=port, browser=not no_browser, ready=ready):
        say(line)
