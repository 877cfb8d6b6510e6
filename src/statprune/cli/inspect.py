"""`statprune inspect`."""

from typing import Annotated

import typer

import statprune
from statprune.anatomy.support import support
from statprune.cli.options import Debug, Entry, Json, register_entries
from statprune.cli.show import as_json, count, quieten_libraries, say, table


def inspect_command(
    model: Annotated[
        str | None,
        typer.Argument(help="A model's folder, or its name on the hub; none: what is supported."),
    ] = None,
    entry: Entry = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Show what can be pruned, in units, parameters and MACs, and what cannot and why."""
    quieten_libraries()
    register_entries(entry)
    if model is None:
        _show_support(json)
        return
    found = statprune.inspect(model)
    if json:
        as_json(found.to_json())
        return
    say(f"{found.model}: {found.model_type}, {found.kind}, {found.blocks} blocks, context {found.context}")
    table(
        "Can be pruned",
        ["site", "unit", "blocks", "units", "params/unit", "MACs/unit"],
        [
            [
                group.part,
                group.unit,
                str(group.blocks),
                str(group.units),
                count(group.parameters_per_unit),
                count(group.macs_per_unit),
            ]
            for group in found.sites
        ],
    )
    table(
        "Stays whole",
        ["part", "parameters", "because"],
        [[part, count(what["parameters"]), what["why"]] for part, what in found.kept_whole.items()],
    )
    share = found.prunable_parameters / found.parameters
    say(
        f"parameters: {count(found.parameters)}, "
        f"of which {count(found.prunable_parameters)} ({share:.1%}) prunable"
    )
    say(f"MACs of the prunable projections: {count(found.prunable_macs)} a token at {found.context} tokens")
    say(f"The same fewer heads in every block {found.uniform_heads}.")


def _show_support(json: bool) -> None:
    rows = support()
    if json:
        as_json({"supported": [row.to_json() for row in rows]})
        return
    table(
        "Supported",
        ["model types", "pruned", "uniformly fewer heads"],
        [[", ".join(row.model_types), row.pruned, row.stock_heads] for row in rows],
    )
    for row in rows:
        if row.stays:
            say(f"{', '.join(row.model_types)}: {row.stays}.")
