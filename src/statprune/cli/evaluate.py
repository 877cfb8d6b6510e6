"""`statprune evaluate`."""

from dataclasses import asdict
from time import perf_counter
from typing import Annotated

import typer

import statprune
from statprune.cli.harness import (
    BatchSize,
    Harness,
    HarnessTasksDir,
    Limit,
    NumFewshot,
    require_alone,
    show_harness,
)
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
    Record,
    Seed,
    SeqLen,
    TextColumn,
    columns,
    register_entries,
)
from statprune.cli.progress import Shown, reporting
from statprune.cli.recording import Recording
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
    harness: Harness = None,
    harness_tasks_dir: HarnessTasksDir = None,
    num_fewshot: NumFewshot = None,
    limit: Limit = None,
    batch_size: BatchSize = None,
    record: Record = None,
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
    """Measure a task, or harness tasks; else perplexity (decoders) or masked-token loss (encoders)."""
    if list_tasks:
        _show_tasks(json=json)
        return
    if model is None:
        raise typer.BadParameter(
            "no model is given; name its folder, or its name on the hub", param_hint="MODEL"
        )
    of_harness = {
        "--harness-tasks-dir": harness_tasks_dir,
        "--num-fewshot": num_fewshot,
        "--limit": limit,
        "--batch-size": batch_size,
    }
    of_data = {
        "--data": data,
        "--task": task,
        "--seq-len": seq_len,
        "--text-column": text_column,
        "--max-tokens": max_tokens,
        "--max-examples": max_examples,
    }
    require_alone(harness, of_harness, of_data)
    quieten_libraries()
    shown = Shown.of(progress, quiet=quiet, json=json, log_file=log_file)
    register_entries(entry)
    recording = Recording.asked(record, model)
    if harness is not None:
        show_harness(
            model,
            shown,
            recording,
            json=json,
            seed=seed,
            tasks=harness,
            tasks_dir=harness_tasks_dir,
            num_fewshot=num_fewshot,
            limit=limit,
            batch_size=batch_size or 1,
            device=device,
            dtype=dtype,
        )
        return
    started = perf_counter()
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
    if recording is not None:
        recording.keep("evaluation", measured.to_json(), quiet=json)
    if json:
        return
    say(measured.headline())
    show_protocol(measured.protocol)
    say(f"time: {perf_counter() - started:.1f} s, loading included")
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
