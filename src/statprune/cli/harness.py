"""`statprune evaluate --harness`: tasks of lm-evaluation-harness."""

from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

import statprune
from statprune.cli.progress import Shown, reporting
from statprune.cli.recording import Recording
from statprune.cli.show import as_json, say, show_protocol, table

if TYPE_CHECKING:
    from statprune.evaluation.harness import Score

Harness = Annotated[
    str | None,
    typer.Option(
        help="Instead of --data: tasks of lm-evaluation-harness, such as hellaswag,arc_easy.",
        show_default=False,
    ),
]
HarnessTasksDir = Annotated[
    Path | None,
    typer.Option(help="With --harness: a folder with task files of your own.", show_default=False),
]
NumFewshot = Annotated[
    int | None,
    typer.Option(
        help="With --harness: solved examples in front of each question.",
        min=0,
        show_default="the task's own",
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(help="With --harness: no more examples of a task; for trials.", min=1, show_default="all"),
]
BatchSize = Annotated[int | None, typer.Option(help="With --harness: rows at once.", min=1, show_default="1")]

COLUMNS = ("task", "metric", "value", "stderr", "version", "n-shot", "examples")


def require_alone(harness: str | None, of_harness: dict[str, Any], of_data: dict[str, Any]) -> None:
    """Nothing, when options belong to what is asked for.

    Raises:
        click.BadParameter: an option of the harness is given without it, or another's with it, or there is
            neither the harness nor a task nor data.
    """
    if harness is None:
        stray, belongs = of_harness, "without --harness it has no meaning; leave it out"
        if of_data["--data"] is None and of_data["--task"] is None:
            raise typer.BadParameter(
                "neither --data nor --task is given; give a text, a task (--task glue/sst2) or --harness",
                param_hint="--data",
            )
    else:
        stray, belongs = of_data, "harness tasks bring their own data and lengths; leave it out"
    for option, given in stray.items():
        if given is not None:
            raise typer.BadParameter(f"{given!r}: {belongs}", param_hint=option)


def show_harness(
    model: str, shown: Shown, recording: Recording | None, *, json: bool, seed: int, **options: Any
) -> None:
    """Evaluate, and print scores and protocol."""
    started = perf_counter()
    with reporting(shown) as on_block:
        # --seed 0, the default, leaves the seeds that the harness's own command line takes.
        found = statprune.harness(model, progress=on_block, seed=seed or None, **options)
    if recording is not None:
        recording.keep("harness", found.to_json(), quiet=json)
    if json:
        as_json(found.to_json())
        return
    table("", COLUMNS, [row(score) for score in found.scores])
    show_protocol(found.protocol)
    say(f"time: {perf_counter() - started:.1f} s, loading included")


def row(score: "Score") -> list[str]:
    """A score as a row of the table."""
    metric = score.metric if score.filter == "none" else f"{score.metric} ({score.filter})"
    stderr = "" if score.stderr is None else f"{score.stderr:.4f}"
    shots = "" if score.shots is None else str(score.shots)
    return [score.task, metric, f"{score.value:.4f}", stderr, score.version or "", shots, str(score.examples)]
