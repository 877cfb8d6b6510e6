"""Pruned models in ONNX Runtime, beside what transformers computes.

    STATPRUNE_SHARED=... python -m benchmarks.serving.onnx

Needs `pip install 'statprune[onnx]'`. Run as a module: as a script it would hide the library onnx.
"""

import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.protocol import articles, minilm, shared, table, write
from statprune import compress
from statprune.demo import CALIBRATION
from statprune.export.onnx import export_onnx

KEEP = 0.7


def rows_for(name: str, source: Path, data: Any, scratch: Path) -> list[dict[str, Any]]:
    """One model: dense, uniform and per layer; with a cache and without, where it can have one."""
    rows = []
    for widths in ("dense", "uniform", "per-layer"):
        folder = source
        if widths != "dense":
            folder = scratch / f"{name}-{widths}"
            compress(source, keep=KEEP, widths=widths, data=data, out=folder)
        for cache in (True, False):
            out = scratch / f"{name}-{widths}-{cache}"
            written = export_onnx(folder, out, cache=cache)
            if cache and not written.cache:
                continue
            row = {"model": name, "widths": widths, "cache": written.cache, "bytes": written.bytes}
            rows.append(row | {"difference": written.difference, "largest": written.largest})
    return rows


def main() -> None:
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        texts = articles(shared("data/wikipedia/AA.jsonl.xz"), (), 400_000)
        rows += rows_for("stories260K", shared("models/stories260K"), str(CALIBRATION), scratch)
        rows += rows_for("wiki-llama-7m", shared("models/wiki-llama-7m"), texts, scratch)
        rows += rows_for("MiniLM", minilm(), texts, scratch)
    cells = [
        [
            row["model"],
            row["widths"],
            "in and out" if row["cache"] else "none",
            f"{row['difference']:.1e}",
            f"{row['largest']:.3g}",
            f"{row['bytes'] / 1e6:.2f}",
        ]
        for row in rows
    ]
    write(
        "onnx",
        "ONNX: ONNX Runtime against transformers",
        {
            "widths": f"method refit, {KEEP} of the parameters of attention and MLP projections kept",
            "difference": "largest of an output; 3 texts of 7 random tokens, exported at 2 of 4; with a "
            "cache 4 tokens at once, then one by one",
            "MB": "10^6 bytes of the graph with its weights, float32",
            "onnx": version("onnx"),
            "onnxscript": version("onnxscript"),
            "onnxruntime": version("onnxruntime"),
        },
        table(["model", "widths", "cache", "difference", "largest output", "MB"], cells),
        rows,
    )


if __name__ == "__main__":
    main()
