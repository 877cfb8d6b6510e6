"""The public models that are served, what they are calibrated on, and folders of them at half their cost."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.protocol import articles, minilm, rows_of, shared
from statprune import compress
from statprune.demo import CALIBRATION

KEEP = 0.5
SAMPLES = 64
SEQ_LEN = 128
METHOD = "stat"  # the quicker one: formats and differences are what is looked at
WIDTHS = ("uniform", "per-layer")


def stories() -> tuple[Path, Any]:
    return shared("models/stories260K"), str(CALIBRATION)


def wiki_llama() -> tuple[Path, Any]:
    excluded = shared("data/wikipedia/exclude_titles.txt").read_text(encoding="utf-8").splitlines()
    texts = articles(shared("data/wikipedia/AE.jsonl.xz"), excluded, 1_000_000)
    return shared("models/wiki-llama-7m"), texts


def all_minilm() -> tuple[Path, Any]:
    rows = rows_of(shared("data/glue/stsb/train.jsonl"))
    return minilm(), [row[side] for row in rows for side in ("sentence1", "sentence2")]


SOURCES = {"stories260K": stories, "wiki-llama-7m": wiki_llama, "all-MiniLM-L6-v2": all_minilm}


def folders(name: str, root: Path) -> Iterator[tuple[str, Path]]:
    """Widths and folder: the dense model, then pruned ones below `root`."""
    path, data = SOURCES[name]()
    yield "dense", path
    for widths in WIDTHS:
        out = root / f"{name}-{widths}"
        options: dict[str, Any] = {"keep": KEEP, "widths": widths, "samples": SAMPLES, "method": METHOD}
        compress(path, data=data, device="cpu", seq_len=SEQ_LEN, out=out, **options)
        yield widths, out
