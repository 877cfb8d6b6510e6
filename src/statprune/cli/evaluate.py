"""`statprune evaluate`."""

from typing import Annotated

import typer

import statprune
from statprune.cli.options import (
    Data,
    Debug,
    Device,
    Dtype,
    Entry,
    Json,
    LogFileOption,
    Model,
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


def evaluate_command(
    model: Model,
    data: Data,
    seq_len: SeqLen = None,
    text_column: TextColumn = None,
    max_tokens: Annotated[int | None, typer.Option(help="Read no more than this.", min=1)] = None,
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
    """Measure perplexity (decoders) or masked-token loss (encoders), and print its protocol."""
    quieten_libraries()
    shown = Shown.of(progress, quiet=quiet, json=json, log_file=log_file)
    register_entries(entry)
    with reporting(shown) as on_block:
        measured = statprune.evaluate(
            model,
            progress=on_block,
            data=data,
            seq_len=seq_len,
            text_column=columns(text_column),
            max_tokens=max_tokens,
            device=device,
            dtype=dtype,
            seed=seed,
        )
    if json:
        as_json(measured.to_json())
        return
    say(measured.headline())
    show_protocol(measured.protocol)
