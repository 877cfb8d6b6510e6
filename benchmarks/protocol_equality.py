"""`evaluate` against an independent computation on WikiText-2, from three forms of its test split.

    STATPRUNE_SHARED=... python benchmarks/protocol_equality.py

The independent computation is the loop that the GPTQ, Wanda and SliceGPT scripts share.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import datasets
import torch
from protocol import shared, table, write
from transformers import AutoModelForCausalLM, AutoTokenizer

from statprune import evaluate

LENGTHS = {"stories260K": 512, "wiki-llama-7m": 256}


@torch.no_grad()
def independent(model: Any, tokenizer: Any, text: str, length: int) -> float:
    ids = tokenizer(text, return_tensors="pt").input_ids
    windows = ids.numel() // length
    nlls = []
    for i in range(windows):
        batch = ids[:, i * length : (i + 1) * length]
        logits = model(batch).logits
        loss = torch.nn.CrossEntropyLoss()(logits[0, :-1, :], batch[0, 1:])
        nlls.append(loss.double() * length)  # a float32 sum is itself off by more than 1e-4
    return float(torch.exp(torch.stack(nlls).sum() / (windows * length)))


def hub_rows(raw: Path, folder: Path) -> str:
    """The rows as the hub serves them, saved as a data set."""
    lines = raw.read_text(encoding="utf-8").split("\n")[:-1]
    rows = ["" if not line.strip() else f"{line}\n" for line in lines]
    datasets.DatasetDict({"test": datasets.Dataset.from_dict({"text": rows})}).save_to_disk(str(folder))
    return f"{folder}@test"


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    raw, joined = shared("data/wikitext-2/wiki.test.raw"), shared("data/wikitext-2/wiki.test.joined.txt")
    told, rows = [], []
    with tempfile.TemporaryDirectory() as scratch:
        sources = {"raw": str(raw), "joined": str(joined), "hub rows": hub_rows(raw, Path(scratch) / "rows")}
        for name, length in LENGTHS.items():
            path = shared(f"models/{name}")
            model, tokenizer = AutoModelForCausalLM.from_pretrained(path), AutoTokenizer.from_pretrained(path)
            alone = independent(model.eval(), tokenizer, joined.read_text(encoding="utf-8"), length)
            for form, source in sources.items():
                found = evaluate(model, data=source, tokenizer=tokenizer, seq_len=length).perplexity
                rows.append({"model": name, "form": form, "independent": alone, "ours": found})
                told.append([name, form, f"{alone:.6f}", f"{found:.6f}", f"{abs(found - alone):.1e}"])
                print(rows[-1], flush=True)
    write(
        "protocol-equality",
        "WikiText-2 perplexity: ours against an independent loop",
        {"windows": f"without overlap, of {LENGTHS} tokens, the whole test split", "dtype": "float32"},
        table(["model", "form of the text", "independent", "ours", "difference"], told),
        rows,
    )


if __name__ == "__main__":
    main()
