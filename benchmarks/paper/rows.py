"""Rows that resume: what is done is not done again, what cannot be done is told in one line."""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic
from typing import Any

from benchmarks.paper.cases import Case, Test, narrowed
from benchmarks.protocol import conditions, rows_of
from statprune.errors import BudgetError, DataError, InputError, ModelError
from statprune.evaluation.scoring import Prepared

IDENTITY = (
    *("model", "task", "method", "keep", "seed", "of"),
    *("examples", "calibration", "data", "seq_len", "limit", "labels"),
)
Row = dict[str, Any]


class OutOfTimeError(Exception):
    """The minutes that a call was given are over."""


def key_of(row: Row) -> tuple[Any, ...]:
    """What no two rows share."""
    return tuple(row.get(name) for name in IDENTITY)


@dataclass
class Rows:
    """A file of rows, one JSON object a line, and the minutes that this call may take.

    Attributes:
        path: the file; it need not exist yet.
        minutes: no row is begun after these; None for no limit.
        failures: what could not be done, one line each.
    """

    path: Path
    minutes: float | None = None
    failures: list[str] = field(default_factory=list)
    began: float = field(init=False)

    def __post_init__(self) -> None:
        self.began = monotonic()

    def all(self) -> list[Row]:
        """Every row; of two with one identity the later one."""
        return list({key_of(row): row for row in rows_of(self.path)}.values())

    def lacks(self, identity: Row) -> bool:
        """Whether there is no such row yet."""
        return key_of(identity) not in {key_of(row) for row in rows_of(self.path)}

    def add(self, row: Row) -> None:
        """Append a row, with the versions it was made with, in one write."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps(row | {"conditions": conditions()}) + "\n"
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(handle, line.encode())
        finally:
            os.close(handle)
        told = {name: row[name] for name in ("model", "task", "method", "keep", "seed")}
        print(json.dumps(told | {"score": row["score"]}), flush=True)

    def require_time(self) -> None:
        """Raise OutOfTimeError where the minutes are over."""
        if self.minutes is not None and monotonic() - self.began > 60 * self.minutes:
            raise OutOfTimeError

    def fail(self, what: str, error: Exception, hint: str = "") -> None:
        """Tell what could not be done, once and in one line."""
        line = " ".join(f"not run: {what}: {error} {hint}".split())
        if line not in self.failures:
            self.failures.append(line)
            print(line, file=sys.stderr, flush=True)


def fill(
    rows: Rows, cases: Sequence[Case], methods: Sequence[str], keeps: Sequence[float], seeds: Sequence[int]
) -> bool:
    """Run what is missing, all cases of the first seed first; whether the time was enough.

    Measurements lie beside the rows, in `measured/`, one for a case and a seed.
    """
    ready: dict[int, dict[Test, Prepared]] = {}
    dense = [("dense", 1.0)]
    cells = [(method, keep) for keep in keeps for method in methods]
    try:
        for seed in seeds:
            for number, case in enumerate(cases):
                if not (_missing(rows, case, dense, None) or _missing(rows, case, cells, seed)):
                    continue
                rows.require_time()
                if number not in ready:
                    ready[number] = _ready(rows, case)
                if ready[number]:
                    _fill_seed(rows, case, ready[number], cells, seed)
    except OutOfTimeError:
        print(f"{rows.minutes:g} minutes are over; call again for what is left.", flush=True)
        return False
    return True


def _missing(
    rows: Rows, case: Case, cells: Sequence[tuple[str, float]], seed: int | None
) -> list[tuple[Test, str, float]]:
    """Tests of these cells that have no row yet."""
    return [
        (test, method, keep)
        for method, keep in cells
        for test in case.tests
        if rows.lacks(case.identity(test, method, keep, seed))
    ]


def _ready(rows: Rows, case: Case) -> dict[Test, Prepared]:
    """The tests that the case can be judged by, with the dense model judged; what cannot be is told."""
    try:
        opened = case.open()
    except InputError as error:
        rows.fail(
            f"{case.name} on {' and '.join(test.task for test in case.tests)}", error, _hint(case, error)
        )
        return {}
    found = {}
    for test in case.tests:
        try:
            prepared = case.prepared(test, opened.tokenizer)
            prepared.check(opened.model)
            if _missing(rows, replace(case, tests=(test,)), [("dense", 1.0)], None):
                identity = case.identity(test, "dense", 1.0, None)
                rows.add(
                    _judged(identity, prepared, opened.model) | {"share": 1.0, "judged": prepared.protocol}
                )
            found[test] = prepared
        except InputError as error:
            rows.fail(f"{case.name} on {test.task}", error, _hint(case, error))
    return found


def _fill_seed(
    rows: Rows, case: Case, tests: dict[Test, Prepared], cells: Sequence[tuple[str, float]], seed: int
) -> None:
    """What is missing of one case and seed; a narrowed model is judged by all its tests."""
    able = replace(case, tests=tuple(tests))
    for method, keep in cells:
        missing = [test for test, _, _ in _missing(rows, able, [(method, keep)], seed)]
        if not missing:
            continue
        rows.require_time()
        try:
            _fill_cell(rows, case, {test: tests[test] for test in missing}, (method, keep), seed)
        except InputError as error:  # such as a share that cannot be reached; others may
            rows.fail(f"{case.name}, {method}, keep {keep:g}, seed {seed}", error, _hint(case, error))
            if not isinstance(error, BudgetError):
                return


def _fill_cell(
    rows: Rows, case: Case, tests: dict[Test, Prepared], cell: tuple[str, float], seed: int
) -> None:
    """One narrowed model, which is let go before the next is opened."""
    made = narrowed(case, *cell, seed, rows.path.parent / "measured")
    facts = {"share": made.share, "seconds": made.seconds, "widths": made.widths}
    facts |= {"calibrated": made.calibration}
    for test, prepared in tests.items():
        rows.add(_judged(case.identity(test, *cell, seed), prepared, made.model) | facts)


def _judged(identity: Row, prepared: Prepared, model: Any) -> Row:
    found = prepared.score(model)
    return identity | {"metric": found.metric, "score": found.score, "metrics": found.metrics}


def _hint(case: Case, error: InputError) -> str:
    """What to bring here, where it is not here."""
    if isinstance(error, ModelError) and not Path(case.model).expanduser().is_dir():
        return f"To have it here: hf download {case.model} (pickled weights: benchmarks/paper/README.md)."
    if isinstance(error, DataError) and "hub data set" in str(error):
        return (
            "To have it here: datasets.load_dataset of it where there is a connection, or give a local file."
        )
    return ""
