"""Perplexity of two small Llamas before and after, published allocation against uniform widths.

    STATPRUNE_SHARED=... python benchmarks/decoders.py [--model stories260K|wiki-llama-7m]

stories260K is calibrated on TinyStories, wiki-llama-7m on Wikipedia; neither on what it is tested on.
Damage is ln(perplexity / dense perplexity).
"""

import argparse
from math import log
from typing import Any

from protocol import articles, shared, table, write

from statprune import compress, evaluate
from statprune.demo import CALIBRATION, EVALUATION
from statprune.inputs import open_model

KEEP = (0.9, 0.75, 0.5)
WIDTHS = ("uniform", "per-layer")
SEEDS = (0, 1, 2)
SEQ_LEN = 256
TOKENS = 60_000


def calibration(model: str) -> Any:
    if model == "stories260K":
        return str(CALIBRATION)
    excluded = shared("data/wikipedia/exclude_titles.txt").read_text(encoding="utf-8").splitlines()
    return articles(shared("data/wikipedia/AE.jsonl.xz"), excluded, 5_000_000)


def tests(model: str) -> dict[str, str]:
    found = {
        "WikiText-2": str(shared("data/wikitext-2/wiki.test.raw")),
        "C4": str(shared("data/c4/c4.txt")),
    }
    return {"TinyStories": str(EVALUATION)} | found if model == "stories260K" else found


def measure(model: Any, tokenizer: Any, data: dict[str, str]) -> dict[str, float]:
    return {
        name: evaluate(model, data=source, tokenizer=tokenizer, seq_len=SEQ_LEN, max_tokens=TOKENS).perplexity
        for name, source in data.items()
    }


def run(name: str) -> None:
    path, data, texts = shared(f"models/{name}"), tests(name), calibration(name)
    opened = open_model(path, device="cpu")
    dense = measure(opened.model, opened.tokenizer, data)
    rows: list[dict[str, Any]] = [{"keep": 1.0, "widths": "dense", "share": 1.0, "seed": None, **dense}]
    for keep in KEEP:
        for widths in WIDTHS:
            for seed in SEEDS:
                made = compress(
                    path,
                    data=texts,
                    method="stat",
                    keep=keep,
                    widths=widths,
                    seed=seed,
                    seq_len=SEQ_LEN,
                    device="cpu",
                )
                found = measure(made.model, made.tokenizer, data)
                share = made.record["cost"]["params"]["share"]
                rows.append({"keep": keep, "widths": widths, "share": share, "seed": seed, **found})
                print(rows[-1], flush=True)
    told = [["1", "dense", "1.000", *(f"{dense[each]:.2f}" for each in data)]]
    for keep in KEEP:
        for widths in WIDTHS:
            same = [row for row in rows if (row["keep"], row["widths"]) == (keep, widths)]
            cells = []
            for each in data:
                values = sorted(row[each] for row in same)
                damage = log(values[1] / dense[each])
                cells.append(f"{values[1]:.2f} ({values[0]:.2f}-{values[2]:.2f}), damage {damage:.3f}")
            told.append([f"{keep:g}", widths, f"{same[0]['share']:.3f}", *cells])
    write(
        f"decoders-{name}",
        f"{name}: perplexity, method stat",
        {
            "calibration": "TinyStories sample that ships with the package"
            if name == "stories260K"
            else "English Wikipedia of 2014, part AE (not trained on), titles in WikiText left out",
            "samples": f"128 windows of {SEQ_LEN} tokens, seeds {SEEDS}",
            "test": f"non-overlapping windows of {SEQ_LEN} tokens, the first {TOKENS} tokens of each text",
            "cells": "median (least-most) of the seeds; damage = ln(perplexity / dense)",
            "share": "of the parameters of the attention and MLP projections",
            "dtype": "float32, factors in float64",
        },
        table(["keep", "widths", "share", *data], told),
        rows,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=("stories260K", "wiki-llama-7m"))
    chosen = parser.parse_args().model
    for each in (chosen,) if chosen else ("stories260K", "wiki-llama-7m"):
        run(each)
