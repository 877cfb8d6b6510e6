"""`statprune push`, and `--push-to-hub` of `statprune compress`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import statprune
from statprune.cli.options import Debug, Json
from statprune.cli.show import as_json, quieten_libraries, say
from statprune.errors import InputError
from statprune.started import own_number

if TYPE_CHECKING:
    from statprune.hub import Pushed, Target

PushToHub = Annotated[
    str | None,
    typer.Option(
        "--push-to-hub",
        help="Upload the folder to this repository on the Hub afterwards, OWNER/NAME; private. "
        "`statprune push` has more options.",
    ),
]


def push_command(
    folder: Annotated[Path, typer.Argument(help="A folder that `compress` has made.", show_default=False)],
    repo: Annotated[str, typer.Argument(help="Its name on the Hub: OWNER/NAME.", show_default=False)],
    public: Annotated[
        bool, typer.Option("--public", help="Let everybody see it; else it is private.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace what is in the repository; the Hub keeps its history.")
    ] = False,
    debug: Debug = False,
    json: Json = False,
) -> None:
    """Upload a folder that compress has made to the Hub, in one commit."""
    quieten_libraries()
    pushed = statprune.push(folder, repo, public=public, replace=replace)
    if json:
        as_json(pushed.to_json())
    else:
        show_pushed(pushed)


def show_pushed(pushed: "Pushed") -> None:
    """Print where it is."""
    seen = "public" if pushed.public else "private"
    say(f"pushed {len(pushed.files)} files: {pushed.url} ({seen})")


def target_before(repo: str | None, *, dry_run: bool) -> "Target | None":
    """Where --push-to-hub goes, asked of the Hub before anything is computed; None where nothing is pushed.

    Of several processes the first one asks.

    Raises:
        InputError: it cannot be pushed to, or there would be nothing to push.
        HubError: the Hub cannot be reached.
    """
    if repo is None or own_number():
        return None
    if dry_run:
        raise InputError("--dry-run writes no folder, so there is nothing to push. Leave out --push-to-hub.")
    from statprune.hub import target_of  # noqa: PLC0415 - help does without the library

    return target_of(repo)
