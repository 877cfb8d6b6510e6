"""`statprune export`: one function a target, all others know nothing of it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from statprune.cli.options import Debug, Entry, Json, Model, register_entries
from statprune.cli.show import as_json, quieten_libraries, say


def _gguf(model: str, out: Path | None, options: Mapping[str, Any]) -> Any:
    from statprune.export.gguf import export_gguf  # noqa: PLC0415 - help does without, and starts at once

    return export_gguf(model, out, dtype=options["dtype"], tokenizer=not options["no_tokenizer"])


def _onnx(model: str, out: Path | None, options: Mapping[str, Any]) -> Any:
    from statprune.export.onnx import export_onnx  # noqa: PLC0415 - as above

    return export_onnx(model, out, cache=not options["no_cache"])


TARGETS: dict[str, Callable[[str, Path | None, Mapping[str, Any]], Any]] = {
    "gguf": _gguf,
    "onnx": _onnx,
}
"""What --to names -> its function, whose result has `to_json()` and `lines()`."""


_OPTIONS: dict[str, Mapping[str, Any]] = {
    "gguf": {"dtype": "auto", "no_tokenizer": False},
    "onnx": {"no_cache": False},
}
"""What a target's own options are while nothing is asked."""


def _refuse_idle(to: str, given: Mapping[str, Any]) -> None:
    """Refuse an option of another target: it would do nothing."""
    for target, idle in _OPTIONS.items():
        for name, value in idle.items():
            if target != to and given[name] != value:
                option = f"--{name.replace('_', '-')}"
                raise typer.BadParameter(
                    f"it is for --to {target}, and does nothing for {to}. Leave it out", param_hint=option
                )


def export_command(
    model: Model,
    to: Annotated[str, typer.Option(help=f"The format: {', '.join(TARGETS)}.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option(help="What to write; must not exist.", show_default="the model's name, here"),
    ] = None,
    dtype: Annotated[
        str, typer.Option(help="gguf: auto (the model's own), f32, f16, bf16 or q8_0.")
    ] = "auto",
    no_tokenizer: Annotated[
        bool, typer.Option("--no-tokenizer", help="gguf: leave the tokenizer out.")
    ] = False,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="onnx: a decoder without keys and values in and out.")
    ] = False,
    entry: Entry = None,
    debug: Debug = False,
    json: Json = False,
) -> None:
    """Write a model, pruned or not, for another program, and compare what that computes."""
    if to not in TARGETS:
        raise typer.BadParameter(f"{to!r} is none of {', '.join(TARGETS)}", param_hint="--to")
    given = {"dtype": dtype, "no_tokenizer": no_tokenizer, "no_cache": no_cache}
    _refuse_idle(to, given)
    quieten_libraries()
    register_entries(entry)
    written = TARGETS[to](model, out, given)
    if json:
        as_json(written.to_json())
        return
    for line in written.lines():
        say(line)
