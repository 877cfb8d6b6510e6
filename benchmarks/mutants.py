"""How many faults that are put into linalg and surgery the tests find: mutmut on a seeded sample.

    python -m benchmarks.mutants --share 0.1 --seed 0

mutmut makes the mutants, in the folder mutants/, and runs the tests that reach each; this only draws which
are run. `mutmut show NAME` shows one. Install: `pip install -c constraints.txt -e '.[mutants]'`.
"""

import argparse
import json
import subprocess
from collections import Counter
from pathlib import Path
from random import Random

FOLDER = Path("mutants")
OUTCOMES = {
    0: "survived",
    1: "killed",
    3: "killed",
    33: "no tests",
    36: "timeout",
    24: "timeout",
    -24: "timeout",
}


def outcomes() -> dict[str, int | None]:
    """Exit code by mutant, None where it has not run."""
    found: dict[str, int | None] = {}
    for meta in sorted(FOLDER.rglob("*.meta")):
        found |= json.loads(meta.read_text())["exit_code_by_key"]
    return found


def run(names: list[str]) -> None:
    subprocess.run(["mutmut", "run", "--max-children", "1", *names], check=False)


def report(names: list[str], total: int) -> str:
    """A table of the mutants run, by module, and the names of those that survived."""
    codes, by_module = outcomes(), dict[str, Counter[str]]()
    for name in names:
        module = name.split(".x")[0].removeprefix("statprune.")
        code = codes[name]
        outcome = "not run" if code is None else OUTCOMES.get(code, f"exit code {code}")
        by_module.setdefault(module, Counter())[outcome] += 1
    kinds = sorted({kind for counts in by_module.values() for kind in counts})
    lines = [
        f"{len(names)} of {total} mutants",
        "",
        f"| module | {' | '.join(kinds)} |",
        "|---" * (len(kinds) + 1) + "|",
    ]
    whole: Counter[str] = sum(by_module.values(), Counter())
    for module, counts in [*sorted(by_module.items()), ("all", whole)]:
        lines.append(f"| {module} | {' | '.join(str(counts[kind]) for kind in kinds)} |")
    survived = [name for name in names if codes[name] == 0]
    return "\n".join([*lines, "", *survived])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--share", type=float, default=0.1, help="of all mutants, drawn at random")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--at-once", type=int, default=4000, help="mutants to one start of mutmut")
    parser.add_argument(
        "--again", action="store_true", help="run those too that survived, after a change of tests"
    )
    chosen = parser.parse_args()
    if not FOLDER.exists():
        run(["none"])  # no mutant has this name: they are only made, and which tests reach them is noted
    every = sorted(outcomes())
    names = sorted(Random(chosen.seed).sample(every, max(1, round(chosen.share * len(every)))))
    unsettled = (None, 0, 33) if chosen.again else (None,)
    left = [name for name in names if outcomes()[name] in unsettled]
    for start in range(0, len(left), chosen.at_once):
        run(left[start : start + chosen.at_once])
    print(report(names, len(every)))


if __name__ == "__main__":
    main()
