"""`statprune compress`."""

from pathlib import Path
from typing import Annotated

import typer

import statprune
from statprune.cli.options import (
    Data,
    Debug,
    Device,
    Dtype,
    Json,
    Model,
    Seed,
    SeqLen,
    TextColumn,
    columns,
)
from statprune.cli.show import as_json, block_progress, count, quieten_libraries, say, table
from statprune.errors import OutputError


def compress_command(
    model: Model,
    data: Data,
    keep: Annotated[float | None, typer.Option(help="Share to keep, above 0, at most 1.")] = None,
    of: Annotated[str, typer.Option(help="What the share is of: params or macs.")] = "params",
    out: Annotated[Path | None, typer.Option(help="Folder to write; it must not exist yet.")] = None,
    method: Annotated[str, typer.Option(help="stat: interpolative decompositions.")] = "stat",
    widths: Annotated[
        str | None,
        typer.Option(
            help="per-layer (STAT's own allocation) or uniform (the same in every block).",
            show_default="uniform for decoders, per-layer for encoders",
        ),
    ] = None,
    plan: Annotated[
        Path | None,
        typer.Option(help="JSON file of units to keep; instead of --keep, --of, --widths and --multiple."),
    ] = None,
    samples: Annotated[int, typer.Option(help="Windows or records of calibration data.")] = 128,
    seq_len: SeqLen = None,
    text_column: TextColumn = None,
    backend: Annotated[
        str, typer.Option(help="gram, qr: exact; gaussian, countsketch: the paper's sketches.")
    ] = "gram",
    multiple: Annotated[int, typer.Option(help="Neuron counts are multiples of this, or full.")] = 8,
    device: Device = "auto",
    dtype: Dtype = "auto",
    seed: Seed = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan; write nothing.")] = False,
    debug: Debug = False,
    json: Json = False,
) -> None:
    """Make a model smaller, and save it as a folder that loads."""
    quieten_libraries()
    if out is None and not dry_run:
        raise OutputError("no output folder; give --out DIR, or --dry-run to see the plan only.")
    with block_progress(shown=not json) as progress:
        result = statprune.compress(
            model,
            data=data,
            out=out,
            dry_run=dry_run,
            progress=progress,
            keep=keep,
            of=of,
            plan=plan,
            method=method,
            widths=widths,
            samples=samples,
            seq_len=seq_len,
            text_column=columns(text_column),
            backend=backend,
            multiple=multiple,
            device=device,
            dtype=dtype,
            seed=seed,
        )
    if json:
        as_json(result.record | {"out": str(result.folder.path) if result.folder else None})
    else:
        _show(result)


def _show(result: "statprune.Result") -> None:
    record, data = result.record, result.record["data"]
    say(
        f"data: {data['source']['source']}, {data['samples']} samples, {data['tokens']} tokens; "
        f"{data['rule']}."
    )
    for note in record["notes"]:
        say(f"note: {note}")
    errors = {site.site: f"{site.relative_error:.2%}" for site in result.trace.sites}
    table(
        f"Plan: {result.plan.why}",
        ["site", "kept", "of", "output error"],
        [
            [name, str(kept), str(record["units"][name]), errors.get(name, "")]
            for name, kept in result.plan.widths.items()
        ],
    )
    table(
        "Prunable projections",
        ["", "dense", "kept", "share"],
        [
            [of, count(cost["dense"]), count(cost["kept"]), f"{cost['share']:.4f}"]
            for of, cost in record["cost"].items()
        ],
    )
    seconds = ", ".join(f"{stage} {time:.1f} s" for stage, time in result.trace.seconds.items())
    say(f"time: {seconds}")
    if result.folder is not None:
        say(f"saved and verified: {result.folder.path}")
        say(result.folder.how_to_load)
