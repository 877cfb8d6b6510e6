"""Kills (kill -9) survived, by kind of run: python -m benchmarks.faults [--kills 200] [--seed 0]."""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.killed import KINDS, survive


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="in all, shared out evenly")
    parser.add_argument("--kind", choices=KINDS, action="append", help="repeatable; by default all")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    kinds = given.kind or KINDS
    each, survived = max(1, given.kills // len(kinds)), 0
    print("| run | kills | before its name | survived | finished, equal bit for bit | half | touched |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for kind in kinds:
        with tempfile.TemporaryDirectory() as folder:
            told = survive(Path(folder), kind, each, given.seed)
        good = told.kills if not told.half and not told.touched else 0
        survived += good
        touched = "yes" if told.touched else "no"
        print(
            f"| {kind} | {told.kills} | {told.early} | {good} | {told.runs} | {len(told.half)} | {touched} |",
            flush=True,
        )
    print(f"\n{survived} of {each * len(kinds)} kills survived.")
    sys.exit(survived != each * len(kinds))


if __name__ == "__main__":
    main()
