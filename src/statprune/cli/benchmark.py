"""`statprune benchmark`."""

from typing import Annotated

import typer

import statprune
from statprune.cli.options import Debug, Device, Dtype, Entry, Json, Model, Record, Seed, register_entries
from statprune.cli.recording import Recording
from statprune.cli.show import as_json, quieten_libraries, say, show_protocol, table


def benchmark_command(
    model: Model,
    against: Annotated[
        str | None, typer.Option(help="The dense model, timed in turn with it: a folder or a name.")
    ] = None,
    batch: Annotated[int, typer.Option(help="Rows.")] = 1,
    seq_len: Annotated[
        int | None,
        typer.Option(
            help="Tokens of the prompt in each row.", show_default="128, or what the context allows"
        ),
    ] = None,
    decode_tokens: Annotated[
        int | None, typer.Option(help="Tokens to write after it; 0: none.", show_default="32 for decoders")
    ] = None,
    repeats: Annotated[int, typer.Option(help="Timed runs of each, after one to warm up.")] = 5,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Time forward passes by torch.compile as well.")
    ] = False,
    record: Record = None,
    entry: Entry = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    seed: Seed = 0,
    debug: Debug = False,
    json: Json = False,
) -> None:
    """Measure size, memory and speed of a model, alone or beside the dense one in alternating runs."""
    quieten_libraries()
    register_entries(entry)
    recording = Recording.asked(record, model)
    found = statprune.benchmark(
        model,
        against=against,
        batch=batch,
        seq_len=seq_len,
        decode_tokens=decode_tokens,
        repeats=repeats,
        compiled=compiled,
        device=device,
        dtype=dtype,
        seed=seed,
    )
    if recording is not None:
        recording.keep("benchmark", found.to_json(), quiet=json)
    if json:
        as_json(found.to_json())
        return
    say(found.headline())
    table("Efficiency", found.columns(), found.rows())
    show_protocol(found.protocol)
