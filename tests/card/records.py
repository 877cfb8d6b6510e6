"""A record of a run, as statprune.json holds it, and results kept beside it."""

from pathlib import Path
from typing import Any

from statprune import results

SOURCE = {"source": "text.jsonl", "kind": "file", "config": None, "split": None, "records": 40}


def record(blocks: int = 3, **changes: Any) -> dict[str, Any]:
    """Of a model with so many blocks, each with widths of its own."""
    widths = {}
    for index in range(blocks):
        widths |= {f"blocks.{index}.attention": 1 + index % 4, f"blocks.{index}.feed_forward": 8 + index}
    units = {name: 4 if "attention" in name else 8 + blocks for name in widths}
    size = {"dense": 1000, "kept": 700, "share": 0.7}
    return {
        "statprune": "0.1.0",
        "versions": {"torch": "2.13.0", "transformers": "5.23.0"},
        "model": "dense",
        "model_type": "llama",
        "recipe": {"keep": 0.7, "method": "refit", "seed": 3, "plan": None},
        "plan": {"widths": widths, "why": "least predicted damage, keep 0.7 of params"},
        "units": units,
        "cost": {"params": size, "macs": size},
        "parameters": size,
        "bytes": size,
        "context": 32,
        "data": {"samples": 8, "tokens": 256, "rule": "windows drawn at random", "source": SOURCE},
        "notes": [],
        "trace": {"predicted": 0.25, "divergence": 0.5, "damage": "KL(dense || thin)", "warnings": []},
        **changes,
    }


def perplexity(value: float, **protocol: Any) -> dict[str, Any]:
    """What `evaluate --json` prints of a text."""
    return {
        "perplexity": value,
        "nll": 1.0,
        "tokens": 9,
        "windows": 1,
        "protocol": {"data": SOURCE, "window": 32, **protocol},
    }


def task(name: str, **metrics: float) -> dict[str, Any]:
    """What `evaluate --task --json` prints."""
    first = next(iter(metrics))
    data = {"source": "nyu-mll/glue", "kind": "hub", "config": "sst2", "split": "validation"}
    return {
        "task": name,
        "metric": first,
        "score": metrics[first],
        "metrics": metrics,
        "examples": 872,
        "protocol": {"task": name, "data": data, "seq_len": 128},
    }


def harness(value: float) -> dict[str, Any]:
    """What `evaluate --harness --json` prints."""
    score = {"task": "arc_easy", "metric": "acc", "filter": "none", "value": value, "stderr": 0.01}
    rest = {"version": "1.0", "shots": 0, "examples": 100, "higher_is_better": True}
    return {"scores": [score | rest], "protocol": {"harness": "lm-eval 0.4.13", "seeds": {"python": 0}}}


def keep(folder: Path, kind: Any, result: dict[str, Any], of: Any = "this") -> None:
    """Keep a result in the folder, as --record does."""
    results.write(folder, kind, of, "made", result)
