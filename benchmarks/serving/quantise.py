"""Prune, then quantise with torchao, save, reload: perplexity and size of the weights.

    STATPRUNE_SHARED=... python -m benchmarks.serving.quantise

Needs `pip install torchao`.
"""

import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torchao.quantization import Int8WeightOnlyConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TorchAoConfig

from benchmarks.protocol import articles, shared, table, write
from statprune import compress, evaluate
from statprune.demo import CALIBRATION

KEEP = 0.7
TOKENS = 60_000


def rows_for(name: str, data: Any, scratch: Path) -> list[dict[str, Any]]:
    """One model: dense, uniform and per layer, each before and after."""
    source, rows = shared(f"models/{name}"), []
    tokenizer = AutoTokenizer.from_pretrained(source)
    text = shared("data/wikitext-2/wiki.test.joined.txt")
    for widths in ("dense", "uniform", "per-layer"):
        folder = source
        if widths != "dense":
            folder = scratch / f"{name}-{widths}"
            compress(source, keep=KEEP, widths=widths, data=data, out=folder)
        quantised = AutoModelForCausalLM.from_pretrained(
            folder, quantization_config=TorchAoConfig(Int8WeightOnlyConfig())
        )
        saved = scratch / f"{name}-{widths}-int8"
        quantised.save_pretrained(saved)
        tokenizer.save_pretrained(saved)
        reloaded = AutoModelForCausalLM.from_pretrained(saved)
        row: dict[str, Any] = {"model": name, "widths": widths, "class": type(reloaded).__name__}
        for kind, each, where in (("float32", folder, folder), ("int8", reloaded, saved)):
            found = evaluate(each, tokenizer=tokenizer, data=str(text), seq_len=256, max_tokens=TOKENS)
            size = sum(path.stat().st_size for path in where.glob("*.safetensors"))
            row[kind] = {"perplexity": found.perplexity, "bytes": size}
        rows.append(row)
    return rows


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        texts = articles(shared("data/wikipedia/AA.jsonl.xz"), (), 400_000)
        rows = rows_for("stories260K", str(CALIBRATION), Path(temporary))
        rows += rows_for("wiki-llama-7m", texts, Path(temporary))
    cells = [
        [row["model"], row["widths"], row["class"]]
        + [f"{row[kind]['perplexity']:.2f}" for kind in ("float32", "int8")]
        + [f"{row[kind]['bytes'] / 1e6:.2f}" for kind in ("float32", "int8")]
        for row in rows
    ]
    write(
        "quantise",
        "Prune, then quantise: torchao, int8, weights only",
        {
            "widths": f"method refit, {KEEP} of the parameters of attention and MLP projections kept",
            "perplexity": f"WikiText-2 test, first {TOKENS} tokens, windows of 256, of the folder reloaded",
            "MB": "10^6 bytes of model.safetensors; embeddings and head are not quantised",
            "torchao": version("torchao"),
        },
        table(["model", "widths", "class", "float32", "int8", "MB float32", "MB int8"], cells),
        rows,
    )


if __name__ == "__main__":
    main()
