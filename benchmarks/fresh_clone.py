"""Wall times of the README's two commands from a fresh clone, downloads and installation included.

python benchmarks/fresh_clone.py
"""

import argparse
import re
import subprocess
import tempfile
from os import cpu_count
from pathlib import Path
from time import perf_counter

from protocol import table, write


def timed(command: list[str], folder: Path) -> tuple[float, str]:
    started = perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return perf_counter() - started, done.stdout


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        clone = Path(scratch) / "clone"
        subprocess.run(["git", "clone", "--quiet", str(Path(__file__).parents[1]), str(clone)], check=True)
        demo, shown = timed(["make", "demo"], clone)
        test, tested = timed(["make", "test"], clone)
    alone = re.search(r"(\d+) s in all", shown)
    tests = re.search(r"\d+ passed[^\n]*", tested)
    if alone is None or tests is None:
        raise SystemExit(f"the commands printed something else:\n{shown[-500:]}\n{tested[-500:]}")
    rows = [
        {"command": "make demo", "seconds": demo, "of which": f"{alone[1]} s the demonstration itself"},
        {"command": "make test", "seconds": test, "of which": tests[0]},
    ]
    write(
        "fresh-clone",
        "The README's two commands from a fresh clone",
        {"cores": cpu_count(), "order": "make demo in a new clone, then make test in the same one"},
        table(
            ["command", "wall time", "of which"],
            [[str(row["command"]), f"{row['seconds']:.0f} s", str(row["of which"])] for row in rows],
        ),
        rows,
    )


if __name__ == "__main__":
    main()
