"""Prune, then quantise to int8 weights with torchao: perplexity and size at every step, and after reloading.

pip install torchao
STATPRUNE_SHARED=... python -m benchmarks.serving.quantise
"""

import argparse
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torchao.quantization import Int8WeightOnlyConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TorchAoConfig

from benchmarks.protocol import shared, table, write
from benchmarks.serving.models import KEEP, METHOD, SAMPLES, folders
from statprune import evaluate

NAME = "wiki-llama-7m"
SEQ_LEN = 256
TOKENS = 20_000


def perplexity(model: Any, tokenizer: Any) -> float:
    text = str(shared("data/wikitext-2/wiki.test.raw"))
    return evaluate(model, data=text, tokenizer=tokenizer, seq_len=SEQ_LEN, max_tokens=TOKENS).perplexity


def megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors")) / 1e6


def measured(widths: str, folder: Path, root: Path) -> dict[str, Any]:
    tokenizer, int8 = AutoTokenizer.from_pretrained(folder), root / f"{widths}-int8"
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    settings = TorchAoConfig(Int8WeightOnlyConfig())
    quantised = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, quantization_config=settings
    )
    quantised.save_pretrained(int8)
    reloaded = AutoModelForCausalLM.from_pretrained(int8)
    return {
        "widths": widths,
        "float32": perplexity(plain, tokenizer),
        "int8": perplexity(quantised, tokenizer),
        "reloaded": perplexity(reloaded, tokenizer),
        "float32 MB": sum(each.numel() for each in plain.parameters()) * 4 / 1e6,
        "int8 MB": megabytes(int8),
    }


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for widths, folder in folders(NAME, Path(scratch)):
            rows.append(measured(widths, folder, Path(scratch)))
            print(rows[-1], flush=True)
    names = ["float32", "int8", "reloaded", "float32 MB", "int8 MB"]
    write(
        "quantise",
        f"{NAME}: pruned, then int8 weights by torchao; WikiText-2 perplexity",
        {
            "pruned": f"keep {KEEP:g} of the prunable parameters, method {METHOD}, {SAMPLES} samples",
            "perplexity": f"WikiText-2 test, windows of {SEQ_LEN} tokens, first {TOKENS:,} tokens",
            "int8": "Int8WeightOnlyConfig, one scale a row, on from_pretrained; embeddings and head are not",
            "reloaded": "save_pretrained, then from_pretrained without further options",
            "torchao": version("torchao"),
        },
        table(["widths", *names], [[row["widths"], *(f"{row[name]:.2f}" for name in names)] for row in rows]),
        rows,
    )


if __name__ == "__main__":
    main()
