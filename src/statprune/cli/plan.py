"""`statprune plan`."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

import statprune
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
    ValueDim,
    columns,
    given,
    register_entries,
    restrictions,
)
from statprune.cli.progress import Shown, reporting
from statprune.cli.show import as_json, count, quieten_libraries, say, span, table

SHARES = (0.9, 0.8, 0.7, 0.6, 0.5)


def plan_command(
    model: Annotated[
        str | None, typer.Argument(help="A model's folder, or its name on the hub.", show_default=False)
    ] = None,
    data: MaybeData = None,
    measured: Annotated[
        Path | None, typer.Option("--from", help="A folder measured before; nothing is measured again.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write; it must not exist yet.")] = None,
    keep: Annotated[
        list[float] | None,
        typer.Option(help="Share to answer for; repeatable.", show_default="0.9 0.8 0.7 0.6 0.5"),
    ] = None,
    of: Annotated[str, typer.Option(help="What the share is of: params, macs or latency.")] = "params",
    widths: Annotated[str, typer.Option(help="per-layer, uniform or stock.")] = "per-layer",
    multiple: Multiple = 8,
    value_dim: ValueDim = None,
    floor: Floor = None,
    protect: Protect = None,
    pin: Pin = None,
    samples: SampleCount = None,
    seq_len: SeqLen = None,
    text_column: TextColumn = None,
    entry: Entry = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    seed: MaybeSeed = None,
    resume: Resume = False,
    offload: Offload = False,
    max_memory: MaxMemory = None,
    progress: ProgressMode = "auto",
    quiet: Quiet = False,
    log_file: LogFileOption = None,
    debug: Debug = False,
    json: Json = False,
) -> None:
    """Measure a model once, then answer any budget in seconds."""
    quieten_libraries()
    shown = Shown.of(progress, quiet=quiet, json=json, log_file=log_file)
    register_entries(entry)
    said = given(samples=samples, seq_len=seq_len, text_column=columns(text_column), seed=seed)
    with reporting(shown) as on_block:
        answered = statprune.answer(
            model,
            data=data,
            measured=measured,
            out=out,
            keeps=keep or SHARES,
            resume=resume,
            offload=offload,
            max_memory=max_memory,
            progress=on_block,
            of=of,
            widths=widths,
            multiple=multiple,
            value_dim=value_dim,
            **restrictions(floor, protect, pin),
            device=device,
            dtype=dtype,
            **said,
        )
    if json:
        as_json(answered.to_json())
        return
    _show(answered, out or measured)


def _show(answered: "statprune.Answers", folder: Path | None) -> None:
    if answered.before:
        say(f"{folder} was finished before; what that run had left beside it is removed.")
    for answer in answered.answers:
        if answer.plan is None:
            say(f"keep {answer.keep:g}: {answer.refused}")
    table(
        f"Budgets of {answered.of}; damage is {answered.damage}",
        ["keep", "share", "params", "predicted damage", "heads (groups)", "value dim", "neurons"],
        [
            [
                f"{answer.keep:g}",
                f"{answer.share:.4f}",
                count(answer.parameters),
                f"{answer.predicted:.4f}",
                _widths(answer.plan.widths, ("attention", "cross_attention")),
                "all" if answer.plan.value_dim is None else str(answer.plan.value_dim),
                _widths(answer.plan.widths, ("feed_forward", "experts", "shared_expert")),
            ]
            for answer in answered.answers
            if answer.plan is not None
        ],
    )
    if any(answer.plan is not None for answer in answered.answers):
        say("Heads and neurons are the least and most of a block; --json has every block's.")
    if folder is not None:
        say(
            f"statprune compress --from {shlex.quote(str(folder))} --keep SHARE --of {answered.of} --out DIR "
            f"makes one of them."
        )


def _widths(widths: Mapping[str, int], parts: tuple[str, ...]) -> str:
    """Least and most of a block; "" where there are no such sites."""
    found = [width for name, width in widths.items() if name.rpartition(".")[2] in parts]
    return span(found) if found else ""
