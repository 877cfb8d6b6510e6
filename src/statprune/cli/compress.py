"""`statprune compress`."""

from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

import statprune
from statprune.cli.gate import Asked, MaxDrop, MaxExamples, MaxTrials, TaskData, TaskName
from statprune.cli.many import many
from statprune.cli.options import (
    Debug,
    Device,
    Dtype,
    Entry,
    Floor,
    Json,
    LogFileOption,
    MaxMemory,
    MaybeData,
    MaybeSeed,
    Multiple,
    Offload,
    Pin,
    ProgressMode,
    Protect,
    Quiet,
    Resume,
    SampleCount,
    SeqLen,
    TextColumn,
    Timeout,
    ValueDim,
    columns,
    given,
    register_entries,
    restrictions,
)
from statprune.cli.progress import Shown, reporting
from statprune.cli.push import PushToHub, show_pushed, target_before
from statprune.cli.show import as_json, quieten_libraries
from statprune.cli.summary import show_result
from statprune.errors import OutputError

if TYPE_CHECKING:
    from statprune.hub import Target


def compress_command(
    model: Annotated[
        str | None,
        typer.Argument(help="A model's folder, or its name on the hub; with --from, the one measured."),
    ] = None,
    data: MaybeData = None,
    measured: Annotated[
        Path | None,
        typer.Option("--from", help="Folder that `statprune plan` has made; instead of --data."),
    ] = None,
    keep: Annotated[float | None, typer.Option(help="Share to keep, above 0, at most 1.")] = None,
    max_drop: MaxDrop = None,
    task: TaskName = None,
    task_data: TaskData = None,
    max_examples: MaxExamples = None,
    max_trials: MaxTrials = None,
    of: Annotated[str, typer.Option(help="What the share is of: params, macs or latency.")] = "params",
    out: Annotated[Path | None, typer.Option(help="Folder to write; it must not exist yet.")] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="refit: compensated refit; stat: interpolative decompositions, as published.",
            show_default="refit",
        ),
    ] = None,
    widths: Annotated[
        str | None,
        typer.Option(
            help="per-layer; uniform, the same in every block; or stock: uniform, as stock transformers can "
            "open it.",
            show_default="per-layer; stat: uniform for decoders",
        ),
    ] = None,
    plan: Annotated[
        Path | None,
        typer.Option(help="JSON file of units to keep; instead of --keep, --of, --widths and --multiple."),
    ] = None,
    value_dim: ValueDim = None,
    samples: SampleCount = None,
    seq_len: SeqLen = None,
    text_column: TextColumn = None,
    backend: Annotated[
        str | None,
        typer.Option(
            help="Method stat; gram, qr: exact; gaussian, countsketch: the paper's sketches.",
            show_default="gram",
        ),
    ] = None,
    multiple: Multiple = 8,
    floor: Floor = None,
    protect: Protect = None,
    pin: Pin = None,
    entry: Entry = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    seed: MaybeSeed = None,
    search: Annotated[
        bool, typer.Option("--search", help="Refine the plan by trying its neighbours out; slower.")
    ] = False,
    push_to_hub: PushToHub = None,
    resume: Resume = False,
    offload: Offload = False,
    max_memory: MaxMemory = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan; write nothing.")] = False,
    progress: ProgressMode = "auto",
    quiet: Quiet = False,
    log_file: LogFileOption = None,
    timeout: Timeout = 300.0,
    debug: Debug = False,
    json: Json = False,
) -> None:
    """Make a model smaller, and save it as a folder that loads."""
    quieten_libraries()
    asked = Asked(max_drop, task, task_data, max_examples, max_trials).options(
        {
            "--keep": keep,
            "--plan": plan,
            "--search": search,
            "--dry-run": dry_run,
            "--offload": offload,
            "--max-memory": max_memory,
        }
    )
    if out is None and not dry_run:
        instead = ", or --dry-run to see the plan only" if asked is None else ""
        raise OutputError(f"no output folder; give --out DIR{instead}.")
    started = perf_counter()
    target = target_before(push_to_hub, dry_run=dry_run)
    said = given(
        method=method,
        samples=samples,
        seq_len=seq_len,
        text_column=columns(text_column),
        backend=backend,
        seed=seed,
    )
    with many(timeout) as ranks:
        first = ranks.rank == 0
        shown = Shown.of(
            progress if first else "auto",
            quiet=quiet or not first,
            json=json,
            log_file=log_file if first else None,
        )
        register_entries(entry)
        with reporting(shown) as on_block:
            shared: dict[str, Any] = {
                "data": data,
                "measured": measured,
                "out": out,
                "resume": resume,
                "progress": on_block,
                "of": of,
                "widths": widths,
                "multiple": multiple,
                "value_dim": value_dim,
                **restrictions(floor, protect, pin),
                "device": device,
                "dtype": dtype,
                **said,
            }
            result = (
                statprune.smallest(model, **asked, **shared)
                if asked is not None
                else statprune.compress(
                    model,
                    dry_run=dry_run,
                    offload=offload,
                    max_memory=max_memory,
                    ranks=ranks,
                    keep=keep,
                    plan=plan,
                    search=search,
                    **shared,
                )
            )
        if first:
            _tell(result, target, perf_counter() - started, json=json)


def _tell(result: "statprune.Result", target: "Target | None", seconds: float, *, json: bool) -> None:
    if not json:
        show_result(result, seconds)
    pushed = None
    if target is not None and result.folder is not None:
        pushed = statprune.push(result.folder.path, target.repo, target=target)
    if json:
        as_json(result.record | _saved(result) | ({} if pushed is None else {"pushed": pushed.to_json()}))
    elif pushed is not None:
        show_pushed(pushed)


def _saved(result: "statprune.Result") -> dict[str, object]:
    if result.folder is None:
        return {"out": None}
    found = result.folder.agreement
    agreement = None if found is None else asdict(found)
    return {"out": str(result.folder.path), "agreement": agreement, "before": result.before}
