"""`statprune compress --max-drop`: the options of a gate, what they exclude, and what its trials print."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from statprune.cli.show import say, table
from statprune.errors import InputError
from statprune.started import started_many

if TYPE_CHECKING:
    from statprune.evaluation.drop import Gate

MaxDrop = Annotated[
    float | None,
    typer.Option(
        help="Instead of --keep: search the smallest model whose metric of --task falls by at most so much: "
        "points, 0 to 100; of a perplexity per cent of the dense one.",
    ),
]
TaskName = Annotated[str | None, typer.Option(help="With --max-drop: a task of evaluate --list-tasks.")]
TaskData = Annotated[
    str | None,
    typer.Option(
        help="With --max-drop: the validation set, as for evaluate; not what the model is calibrated on.",
        show_default="the task's own on the hub",
    ),
]
MaxExamples = Annotated[
    int | None, typer.Option(help="With --max-drop: ask no more than these, drawn by the seed.", min=1)
]
MaxTrials = Annotated[
    int | None, typer.Option(help="With --max-drop: models made and asked, at most.", min=1, show_default="8")
]


@dataclass(frozen=True)
class Asked:
    """The options of a gate, as the command line has them."""

    max_drop: float | None
    task: str | None
    task_data: str | None
    max_examples: int | None
    max_trials: int | None

    def options(self, excluded: dict[str, Any]) -> dict[str, Any] | None:
        """Keywords for `statprune.smallest`; None where no gate is asked for.

        `excluded` are the options, by name, that do not go with one; those not given are None or False.

        Raises:
            InputError: one of the two halves is missing, or an option contradicts the gate.
        """
        if self.max_drop is None:
            for name, value in vars(self).items():
                if value is not None:
                    option = f"--{name.replace('_', '-')}"
                    raise InputError(
                        f"{option} is {value!r}, which goes with --max-drop; give both or neither."
                    )
            return None
        if self.task is None:
            raise InputError(
                f"--max-drop is {self.max_drop:g}, but no --task says of what; give both, as in "
                f"--max-drop 1.0 --task glue/sst2."
            )
        given = [name for name, value in excluded.items() if value is not None and value is not False]
        if given:
            raise InputError(f"both {given[0]} and --max-drop are given; {EXCLUDED.get(given[0], INSTEAD)}")
        if started_many() > 1:
            raise InputError(
                f"{started_many()} processes were started, and --max-drop runs in one. Start it without "
                f"torchrun; or search first, then give --keep the share that was found."
            )
        return {name: value for name, value in vars(self).items() if value is not None}


INSTEAD = "--max-drop finds what to keep. Give one of them."
_MEMORY = "trials need the model in memory. Leave it out; or give --keep."
EXCLUDED = {
    "--offload": _MEMORY,
    "--max-memory": _MEMORY,
    "--dry-run": "no drop is known without trials. Leave out --dry-run; or give --keep.",
    "--search": "trials try shares, not plans of one share. Leave out --search.",
}


def show_gate(gate: "Gate") -> None:
    """Print the trials as a table, and which was chosen."""
    data = gate.protocol["data"]
    say(
        f"gate: {gate.metric} of {gate.task} may fall by {gate.max_drop:g} {gate.unit} from {gate.dense:.4f} "
        f"({gate.examples} examples of {data['source']})."
    )
    for note in gate.notes:
        say(f"note: {note}")
    table(
        f"Trials, in {gate.unit}",
        ["keep", "share", gate.metric, "drop", "within", "predicted damage", "seconds"],
        [
            [
                f"{trial.keep:g}",
                f"{trial.share:.4f}",
                _number(trial.score),
                _number(trial.drop),
                "chosen" if trial.keep == gate.keep else "yes" if trial.passes else "no",
                _number(trial.predicted),
                f"{trial.seconds:.1f}",
            ]
            for trial in gate.trials
        ],
    )
    if gate.untried:
        left = f"{gate.untried[0]:g} to {gate.untried[-1]:g}" if gate.untried[1:] else f"{gate.untried[0]:g}"
        say(f"not tried: {left}; a smaller model may pass. Allow more trials (--max-trials).")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
