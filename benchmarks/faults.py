"""Kills (kill -9) survived, by kind of run: python -m benchmarks.faults [--kills 200] [--seed 0]."""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.killed import KINDS, survive


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="in all, shared out evenly")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    each, survived = max(1, given.kills // len(KINDS)), 0
    print("| run | kills | survived | finished, equal bit for bit | half outputs | user's files touched |")
    print("| --- | --- | --- | --- | --- | --- |")
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            told = survive(Path(folder), kind, each, given.seed)
        good = told.kills if not told.half and not told.touched else 0
        survived += good
        touched = "yes" if told.touched else "no"
        print(f"| {kind} | {told.kills} | {good} | {told.runs} | {len(told.half)} | {touched} |", flush=True)
    print(f"\n{survived} of {each * len(KINDS)} kills survived.")
    sys.exit(survived != each * len(KINDS))


if __name__ == "__main__":
    main()
