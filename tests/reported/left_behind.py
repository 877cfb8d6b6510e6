"""What runs leave, made up: of any size, whole or as old versions left it."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from statprune.engine.divergence import CHOICES


def record(blocks: int = 3, neurons: int = 96, heads: int = 8, seed: int = 0, **more: Any) -> dict[str, Any]:
    """A run record with everything in it that a run of today leaves."""
    draw = np.random.default_rng(seed)
    units = {
        f"blocks.{block}.{part}": full
        for block in range(blocks)
        for part, full in (("attention", heads), ("feed_forward", neurons))
    }
    widths = {site: int(draw.integers(1, full + 1)) for site, full in units.items()}
    dense, kept = sum(units.values()) * 64, sum(widths.values()) * 64
    return {
        "statprune": "0.1.0",
        "versions": {"torch": "2.13.0", "transformers": "5.23.0"},
        "model": "tiny-llama",
        "model_type": "llama",
        "dtype": "float32",
        "recipe": {"keep": 0.6, "of": "params", "method": "refit", "seed": 0},
        "plan": {"format": 1, "why": "least predicted damage, keep 0.6 of params", "widths": widths},
        "units": units,
        "cost": {of: {"dense": dense, "kept": kept, "share": kept / dense} for of in ("params", "macs")},
        "parameters": {"dense": dense + 1000, "kept": kept + 1000},
        "bytes": {"dense": 4 * dense + 4000, "kept": 4 * kept + 4000},
        "curves": {site: curve(full, widths[site], draw) for site, full in units.items()},
        "context": 64,
        "data": {"rule": "records joined", "samples": 16, "tokens": 1024, "source": {"source": "t.jsonl"}},
        "notes": ["16 windows asked, 12 available; all are used"],
        "trace": {
            "sites": [
                {
                    "site": site,
                    "units": full,
                    "kept": sorted(draw.choice(full, widths[site], replace=False).tolist()),
                    "relative_error": 0.1,
                    "condition": 10.0,
                    "rank": 8,
                }
                for site, full in units.items()
            ],
            "seconds": {"prepare": 0.8, "survey": 35.1, "refit": 42.2, "save": 3.4},
            "memory": {"prepare": 2.1e9, "survey": 3.4e9, "refit": 3.2e9, "save": 2.2e9},
            "warnings": ["blocks.1.attention: conditions are poor"],
            "search": [],
            "predicted": 0.132,
            "damage": CHOICES,
            "divergence": 0.091,
        },
        **more,
    }


def curve(full: int, chosen: int, draw: np.random.Generator) -> dict[str, list[Any]]:
    """Error and damage of a site at 65 widths at most, the one chosen among them."""
    units = sorted({round(each) for each in np.linspace(0, full, min(full + 1, 64))} | {chosen})
    lost = 1 - np.array(units) / full
    error = lost ** (2 + 2 * draw.random())
    return {"units": units, "error": error.tolist(), "damage": (0.3 * error * draw.random()).tolist()}


def gate() -> dict[str, Any]:
    """The trials of a run with --max-drop."""
    trials = [(0.3, 76.0, False), (0.34, 77.25, True), (0.32, 77.5, True)]
    return {
        "task": "glue/mrpc",
        "metric": "accuracy",
        "unit": "points",
        "max_drop": 3.0,
        "dense": 79.5,
        "of": "macs",
        "keep": 0.32,
        "trials": [
            {
                "keep": keep,
                "share": keep - 0.001,
                "score": score,
                "drop": 79.5 - score,
                "passes": passes,
                "predicted": 0.02,
                "seconds": 47.0,
            }
            for keep, score, passes in trials
        ],
        "untried": [0.31],
        "examples": 400,
        "protocol": {"task": "glue/mrpc", "data": {"source": "validation.jsonl"}, "seq_len": 128},
        "notes": [],
    }


def result(kind: str, of: str, content: dict[str, Any]) -> dict[str, Any]:
    """A recorded result as its file holds it."""
    when = "2026-01-02T03:04:05+00:00"
    return {"format": 1, "kind": kind, "of": of, "model": "tiny-llama", "when": when, "result": content}


def perplexity(value: float, seq_len: int = 64) -> dict[str, Any]:
    """What `evaluate --json` prints of a decoder."""
    protocol = {"data": {"source": "test.txt", "kind": "file"}, "window": seq_len}
    return {
        "perplexity": value,
        "nll": float(np.log(value)),
        "tokens": 640,
        "windows": 10,
        "protocol": protocol,
    }


def accuracy(value: float, task: str = "glue/sst2") -> dict[str, Any]:
    """What `evaluate --task --json` prints."""
    return {
        "task": task,
        "metric": "accuracy",
        "score": value,
        "higher_is_better": True,
        "metrics": {"accuracy": value},
        "examples": 200,
        "truncated": 0,
        "skipped": 0,
        "protocol": {"task": task, "seq_len": 128},
        "notes": [],
        "seconds": 1.5,
    }


def benchmark() -> dict[str, Any]:
    """What `benchmark --against --json` prints."""

    def model(speed: float) -> dict[str, Any]:
        timing = {"least": 0.9, "most": 1.1, "seconds": [1.0]}
        return {
            "forward_bytes": int(4e8 / speed),
            "forward": {"tokens_per_second": 128 * speed, "median": 1 / speed, **timing},
            "decode": {"tokens_per_second": 30 * speed, "median": 1 / speed, **timing},
            "compiled": None,
        }

    protocol = {"batch": 1, "seq_len": 128, "device": "cpu", "threads": 2}
    return {"pruned": model(1.6), "dense": model(1.0), "ratios": {}, "faster": True, "protocol": protocol}


def results() -> list[dict[str, Any]]:
    """An evaluation of both models, by text and by task, and a benchmark."""
    return [
        result("evaluation", "dense", perplexity(130.7)),
        result("evaluation", "this", perplexity(138.2)),
        result("evaluation", "dense", accuracy(85.67)),
        result("evaluation", "this", accuracy(85.2)),
        result("benchmark", "this", benchmark()),
    ]


def leave(folder: Path, content: Any, recorded: list[dict[str, Any]] | None = None) -> Path:
    """A folder as a run leaves it."""
    folder.mkdir(parents=True)
    (folder / "statprune.json").write_text(json.dumps(content))
    for number, each in enumerate(recorded or []):
        (folder / "results").mkdir(exist_ok=True)
        (folder / "results" / f"{number + 1:03d}-{each['kind']}-x.json").write_text(json.dumps(each))
    return folder
