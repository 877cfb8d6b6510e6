"""Options that several commands share."""

from pathlib import Path
from typing import Annotated, Any

import typer

import statprune

Model = Annotated[str, typer.Argument(help="A model's folder, or its name on the hub.", show_default=False)]
Data = Annotated[
    str | None,
    typer.Option(
        help="NAME[:CONFIG][@SPLIT] of a data set on the hub, or a local file or folder (.jsonl .json .csv "
        ".tsv .parquet, or plain text; also .gz .xz .zst); for models that read images, a folder of them.",
        show_default=False,
    ),
]
MaybeData = Annotated[
    str | None, typer.Option(help="As for evaluate: NAME[:CONFIG][@SPLIT], or a local file or folder.")
]
TextColumn = Annotated[
    str | None,
    typer.Option(
        help="Column that holds the text; two, joined by a comma, for pairs or for source and target.",
        show_default="text",
    ),
]
SeqLen = Annotated[
    int | None,
    typer.Option(help="Tokens per sample.", show_default="the smaller of 2048 and the context"),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Dtype = Annotated[str, typer.Option(help="auto (the checkpoint's), float32, bfloat16 or float16.")]
Seed = Annotated[int, typer.Option(help="Seed of every random draw.", min=0, max=2**63 - 1)]
MaybeSeed = Annotated[int | None, typer.Option(help="Seed of every random draw.", min=0, show_default="0")]
SampleCount = Annotated[
    int | None, typer.Option(help="Windows, records or images of calibration data.", show_default="128")
]
Floor = Annotated[
    list[str] | None,
    typer.Option(help="Least units to keep, SITE=UNITS or KIND=UNITS (attention, feed_forward); repeatable."),
]
Protect = Annotated[
    list[int] | None, typer.Option(help="A block that keeps every unit; -1 is the last; repeatable.")
]
Pin = Annotated[
    list[str] | None, typer.Option(help="The width of a site, SITE=UNITS, whatever the budget; repeatable.")
]
Multiple = Annotated[int, typer.Option(help="Neuron counts are multiples of this, or full.")]
ValueDim = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Columns that the values of every head keep; the head's size keeps all.",
        show_default="the number with which least is lost, where widths are per layer",
    ),
]
Entry = Annotated[
    list[Path] | None,
    typer.Option(
        help="A TOML file that describes a kind of model which this package does not know; repeatable.",
    ),
]
Record = Annotated[
    Path | None,
    typer.Option(
        help="Keep the result in this folder, which compress has made, for its report and its model card: "
        "that of the model in it, or of the dense one.",
        show_default=False,
    ),
]
Resume = Annotated[
    bool,
    typer.Option("--resume", help="Go on with a run into the same folder that did not end, block by block."),
]
Timeout = Annotated[
    float,
    typer.Option(
        "--timeout",
        help="With torchrun: seconds without a sign of life after which another process counts as lost.",
    ),
]
Offload = Annotated[
    bool, typer.Option("--offload", help="Leave blocks on disk and read one at a time: for large models.")
]
MaxMemory = Annotated[
    str | None,
    typer.Option(
        help="With --offload: bytes that the process may take, as in 6GB.",
        show_default="half of what is free",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, and nothing else.")]
ProgressMode = Annotated[
    str,
    typer.Option(
        "--progress",
        help="Shows progress on stderr: bars; lines; json, an object a line; auto: bars on a terminal, "
        "else occasional lines, and nothing with --json.",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show warnings, errors and the result; no progress.")]
LogFileOption = Annotated[
    Path | None,
    typer.Option("--log-file", help="Append progress to this file, a JSON object with a time a line."),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def register_entries(entries: list[Path] | None) -> None:
    """Add the entries that --entry names."""
    for path in entries or []:
        statprune.register(path)


def given(**options: Any) -> dict[str, Any]:
    """Those that were given: for all others Python has defaults of its own."""
    return {name: value for name, value in options.items() if value is not None}


def columns(text_column: str | None) -> str | tuple[str, str] | None:
    """The one column, or the two, that --text-column names.

    Raises:
        click.BadParameter: more than two are named.
    """
    if text_column is None or "," not in text_column:
        return text_column
    first, _, second = text_column.partition(",")
    if "," in second or not first or not second:
        raise typer.BadParameter(
            f"{text_column!r} names neither one column nor two", param_hint="--text-column"
        )
    return first.strip(), second.strip()


def restrictions(floor: list[str] | None, protect: list[int] | None, pin: list[str] | None) -> dict[str, Any]:
    """The options floors, protect and pins of --floor, --protect and --pin.

    Raises:
        click.BadParameter: a floor or a pin is not NAME=UNITS, or comes twice.
    """
    return {
        "floors": units_by_name(floor, "--floor"),
        "protect": protect or (),
        "pins": units_by_name(pin, "--pin"),
    }


def units_by_name(given: list[str] | None, option: str) -> dict[str, int]:
    """NAME=UNITS, as often as it was given.

    Raises:
        click.BadParameter: one is not of that form, or a name comes twice.
    """
    from statprune.budget.restrictions import units_by_name as named  # noqa: PLC0415 - help does without torch
    from statprune.errors import PlanError  # noqa: PLC0415

    try:
        return named(given or [])
    except PlanError as error:
        raise typer.BadParameter(str(error), param_hint=option) from error
