"""Options that the scripts share."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.paper.cases import FIRST, METHODS, Case
from benchmarks.paper.page import SEEDS
from statprune.errors import InputError

HERE = Path(__file__).parent


def parser_of(doc: str | None, name: str, keeps: Sequence[float]) -> argparse.ArgumentParser:
    """The parser with what every table takes; lists not given have their defaults."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.paper.{name}",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--method", nargs="+", choices=list(METHODS), default=list(FIRST))
    parser.add_argument("--keep", nargs="+", type=float, default=list(keeps), help="shares to keep")
    parser.add_argument("--seed", nargs="+", type=int, default=list(SEEDS), help="draw calibration examples")
    parser.add_argument("--samples", type=int, help="calibration examples")
    parser.add_argument("--seq-len", type=int, help="most tokens of an example, in calibration and tests")
    parser.add_argument(
        "--data", action="append", metavar="TASK=SOURCE", help="what judges; by default the hub's"
    )
    parser.add_argument(
        "--limit", action="append", metavar="TASK=N", help="most examples; of a text most tokens"
    )
    parser.add_argument("--minutes", type=float, help="begin nothing new after these; a later call goes on")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--out", type=Path, default=HERE, help="where rows, measurements and the page lie")
    parser.add_argument("--report", action="store_true", help="run nothing, write the page")
    parser.add_argument("--offline", action="store_true", help="take nothing from the hub: HF_HUB_OFFLINE=1")
    return parser


def pairs(given: Sequence[str] | None) -> dict[str, str]:
    """NAME=VALUE, split; SystemExit where one is not of this form."""
    made = {}
    for one in given or ():
        name, equals, value = one.partition("=")
        if not (name and equals and value):
            raise SystemExit(f"{one!r} is not TASK=VALUE, such as glue/mrpc=folder.")
        made[name] = value
    return made


def asked_cases(
    parser: argparse.ArgumentParser,
    make: Callable[[argparse.Namespace], list[Case]],
    asked: argparse.Namespace,
) -> list[Case]:
    """What `make` makes of the options; exit code 2 and one line where that cannot be."""
    try:
        return make(asked)
    except (InputError, ValueError) as error:
        parser.error(str(error))


def asked_minutes(asked: argparse.Namespace) -> float | None:
    """The minutes of this call; SystemExit where they are not above 0."""
    minutes: float | None = asked.minutes
    if minutes is not None and minutes <= 0:
        raise SystemExit(f"--minutes {minutes:g}: give more than 0.")
    return minutes
