"""What the paper's tables are made of: a model, its calibration, what judges it, and the two methods."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import statprune
from statprune.errors import ModelError
from statprune.evaluation.scoring import LONGEST_DEFAULT, Prepared, prepare
from statprune.evaluation.tasks import task_named
from statprune.inputs import Opened, context_length, open_model

METHODS: dict[str, tuple[Literal["refit", "stat"], Literal["per-layer", "uniform"]]] = {
    "ours": ("refit", "per-layer"),
    "stat": ("stat", "per-layer"),
    "ours, uniform": ("refit", "uniform"),
    "stat, uniform": ("stat", "uniform"),
}
"""A method and how its widths are allocated; "stat" has the published allocation."""

FIRST = ("ours", "stat")


@dataclass(frozen=True)
class Test:
    """A task of docs/evaluation.md that judges a model.

    Attributes:
        task: its name.
        data: a SOURCE; None for the task's own on the hub.
        limit: most examples, drawn by seed 0; of a text most tokens; None for all that the task reads.
    """

    task: str
    data: str | None = None
    limit: int | None = None


@dataclass(frozen=True)
class Case:
    """A model, how it is narrowed, and how it is judged.

    Attributes:
        model: a folder, or a name on the hub.
        of: what a share to keep counts.
        tests: what judges it.
        calibration: gives the calibration data, a SOURCE or texts; called when it is first needed.
        calibrated_on: its name in a row.
        columns: the columns of text in it; None where it has one.
        samples: calibration examples.
        seq_len: tokens of a sample, of calibration and of tests.
        labels: names of the model's outputs in their order, where its config does not give them.
        device: where to compute.
        dtype: what weights are loaded as.
    """

    model: str
    of: Literal["params", "macs"]
    tests: tuple[Test, ...]
    calibration: Callable[[], Any]
    calibrated_on: str
    columns: tuple[str, ...] | None
    samples: int
    seq_len: int
    labels: tuple[str, ...] = ()
    device: str = "auto"
    dtype: str = "auto"

    @property
    def name(self) -> str:
        """The model's in a row."""
        return shown(self.model)

    def open(self) -> Opened:
        """The dense model, anew.

        Raises:
            ModelError: it cannot be opened, or reads fewer tokens than a sample has.
        """
        opened = open_model(self.model, device=self.device, dtype=self.dtype)
        longest = context_length(opened) or LONGEST_DEFAULT
        if self.seq_len > longest:
            raise ModelError(f"{self.name} reads {longest} tokens, not {self.seq_len}; give --seq-len.")
        if self.labels:
            opened.model.config.id2label = dict(enumerate(self.labels))
            opened.model.config.label2id = {name: number for number, name in enumerate(self.labels)}
        return opened

    def prepared(self, test: Test, tokenizer: Any) -> Prepared:
        """The test's data, tokenised.

        Raises:
            InputError: it cannot be read.
        """
        limit = test.limit
        if limit is not None and task_named(test.task).kind == "perplexity":
            limit = max(1, limit // self.seq_len)
        return prepare(test.task, test.data, tokenizer, self.seq_len, limit)

    def identity(self, test: Test, method: str, keep: float, seed: int | None) -> dict[str, Any]:
        """What makes a row the one it is: no versions, and nothing of the machine."""
        dense = method == "dense"
        return {
            "model": self.name,
            "task": test.task,
            "method": method,
            "keep": keep,
            "seed": seed,
            "of": self.of,
            "examples": None if dense else self.samples,
            "calibration": None if dense else self.calibrated_on,
            "data": "hub" if test.data is None else shown(test.data),
            "seq_len": self.seq_len,
            "limit": test.limit,
            "labels": ",".join(self.labels) or None,
        }

    def options(self, seed: int) -> dict[str, Any]:
        """How calibration samples are drawn, as `statprune.plan` and `compress` take it."""
        columns = self.columns
        one = columns[0] if columns is not None and len(columns) == 1 else columns
        return {"samples": self.samples, "seq_len": self.seq_len, "text_column": one, "seed": seed}


def shown(source: str) -> str:
    """A source as rows name it: of a path that is here, or an absolute one, only its name."""
    base, _, split = source.rpartition("@") if "@" in source else (source, "", "")
    local = Path(base).expanduser().exists() or Path(base).expanduser().is_absolute()
    return (Path(base).name + (f"@{split}" if split else "")) if local else source


def measured(case: Case, seed: int, folder: Path) -> tuple[Path, float]:
    """The folder of this case's one measurement, below `folder`, made if it is not there; and the seconds.

    A measurement that was stopped is gone on with.
    """
    words = (case.name, case.tests[0].task, case.calibrated_on, case.samples, case.seq_len, seed)
    place = folder / "-".join(str(word).replace("/", "_").replace(":", "_") for word in words)
    if place.exists():
        return place, 0.0
    opened, started = case.open(), perf_counter()
    statprune.plan(
        opened.model,
        data=case.calibration(),
        tokenizer=opened.tokenizer,
        out=place,
        latency=False,
        resume=True,
        **case.options(seed),
    )
    return place, perf_counter() - started


@dataclass(frozen=True)
class Made:
    """A narrowed model, the share that it keeps, units by site, its calibration, and seconds by stage."""

    model: Any
    tokenizer: Any
    share: float
    widths: dict[str, int]
    calibration: dict[str, Any]
    seconds: dict[str, float]


def narrowed(case: Case, method: str, keep: float, seed: int, folder: Path) -> Made:
    """The case's model at a share to keep, in memory.

    Args:
        case: which model, and its calibration.
        method: of METHODS.
        keep: the share to keep.
        seed: draws the calibration samples.
        folder: where measurements lie.

    Raises:
        InputError: the model or the data cannot be used, or the share cannot be reached.
    """
    engine, rule = METHODS[method]
    seconds: dict[str, float] = {}
    given: dict[str, Any]
    if engine == "refit":
        place, took = measured(case, seed, folder)
        given = {"measured": place}
        if took:
            seconds["measure"] = took
    else:
        given = {"data": case.calibration(), "method": "stat", **case.options(seed)}
    opened, started = case.open(), perf_counter()
    made = statprune.compress(
        opened.model, tokenizer=opened.tokenizer, keep=keep, of=case.of, widths=rule, **given
    )
    seconds |= {"compress": perf_counter() - started}
    seconds |= {f"of which {stage}": took for stage, took in made.trace.seconds.items()}
    share = made.record["cost"][case.of]["share"]
    widths = dict(made.plan.widths)
    return Made(made.model, opened.tokenizer, share, widths, made.record["data"], seconds)
