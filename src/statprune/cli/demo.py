"""`statprune demo`."""

from pathlib import Path
from typing import Annotated

import typer

import statprune
from statprune.cli.options import Debug, Json
from statprune.cli.show import as_json, count, quieten_libraries, say, show_protocol, table


def demo_command(
    out: Annotated[Path, typer.Option(help="Where the new folders go.")] = Path("demo-output"),
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Compress a small Llama that ships with the package, and show what that cost and gained."""
    quieten_libraries()
    if json:
        as_json(statprune.demonstrate(out).to_json())
    else:
        _show(statprune.demonstrate(out, say=say))


def _show(done: "statprune.Demonstration") -> None:
    table(
        "stories260K on TinyStories",
        ["model", "of its blocks", "parameters", "perplexity", "tokens/s", "speed-up"],
        [
            [
                row.name,
                f"{row.share:.1%}",
                count(row.parameters),
                f"{row.perplexity:.2f}",
                count(row.prefill),
                f"{row.speed_up:.2f}x",
            ]
            for row in done.rows
        ],
    )
    say("perplexity:")
    show_protocol(done.quality_protocol)
    say("tokens/s, reading a prompt:")
    show_protocol(done.speed_protocol)
    for row in done.rows:
        say()
        say(f"--- a story by the {row.name} model")
        for line in row.story.splitlines():
            say(line)
    say()
    for row in done.rows[1:]:
        say(f"saved in {row.folder}")
    say(f"{done.seconds:.0f} s in all")
