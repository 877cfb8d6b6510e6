"""`statprune evaluate`."""

from dataclasses import asdict
from typing import Annotated

import typer

import statprune
from statprune.cli.options import (
    Debug,
    Device,
    Dtype,
    Entry,
    Json,
    LogFileOption,
    MaybeData,
    ProgressMode,
    Quiet,
    Seed,
    SeqLen,
    TextColumn,
    columns,
    register_entries,
)
from statprune.cli.progress import Shown, reporting
from statprune.cli.show import as_json, quieten_libraries, say, show_protocol
from statprune.evaluation.tasks import TASKS

MaybeModel = Annotated[
    str | None, typer.Argument(help="A model's folder, or its name on the hub.", show_default=False)
]


def evaluate_command(
    model: MaybeModel = None,
    data: MaybeData = None,
    task: Annotated[str | None, typer.Option(help="A task by its name, such as glue/sst2.")] = None,
    list_tasks: Annotated[bool, typer.Option("--list-tasks", help="Print the tasks, and end.")] = False,
    seq_len: SeqLen = None,
    text_column: TextColumn = None,
    max_tokens: Annotated[int | None, typer.Option(help="Read no more than this.", min=1)] = None,
    max_examples: Annotated[
        int | None, typer.Option(help="Of a task: ask no more than these, drawn by the seed.", min=1)
    ] = None,
    entry: Entry = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    seed: Seed = 0,
    progress: ProgressMode = "auto",
    quiet: Quiet = False,
    log_file: LogFileOption = None,
    debug: Debug = False,
    json: Json = False,
) -> None:
    """Measure a task's metrics; without a task, perplexity (decoders) or masked-token loss (encoders)."""
    if list_tasks:
        _show_tasks(json=json)
        return
    if model is None:
        raise typer.BadParameter(
            "no model is given; name its folder, or its name on the hub", param_hint="MODEL"
        )
    if data is None and task is None:
        raise typer.BadParameter(
            "neither --data nor --task is given; give a text, or a task such as --task glue/sst2",
            param_hint="--data",
        )
    quieten_libraries()
    shown = Shown.of(progress, quiet=quiet, json=json, log_file=log_file)
    register_entries(entry)
    with reporting(shown) as on_block:
        measured = statprune.evaluate(
            model,
            progress=on_block,
            data=data,
            task=task,
            seq_len=seq_len,
            text_column=columns(text_column),
            max_tokens=max_tokens,
            max_examples=max_examples,
            device=device,
            dtype=dtype,
            seed=seed,
        )
    if json:
        as_json(measured.to_json())
        return
    say(measured.headline())
    show_protocol(measured.protocol)
    for note in getattr(measured, "notes", ()):
        say(f"note: {note}")


def _show_tasks(*, json: bool) -> None:
    """The entries, as a table or as JSON."""
    if json:
        as_json({"tasks": [asdict(each) for each in TASKS]})
        return
    longest = max(len(each.name) for each in TASKS)
    for each in TASKS:
        say(f"{each.name:{longest}}  {', '.join(each.metrics[:3])}  ({each.hub}: {', '.join(each.columns)})")
