"""What float32 products change in a pruned model: docs/decisions/0008-precision-of-products.md.

STATPRUNE_SHARED=... python -m benchmarks.speed.precision

Method stat at half of the parameters of the blocks, one plan for all, made in float64: against a run wholly
in float64, a float32 model whose Gram matrices are summed from float64 products, and from float32 ones.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from benchmarks.protocol import articles, minilm, shared, table, write
from benchmarks.quality.subjects import WIKIPEDIA
from statprune.anatomy.lookup import anatomy_of
from statprune.budget.allocate import Budget, published, uniform
from statprune.budget.cost import Cost
from statprune.budget.plan import Plan
from statprune.engine.stat import stat
from statprune.engine.trace import Trace
from statprune.linalg.gram import Gram

KEEP, TESTED, BATCH = 0.5, 32, 16
Batches = list[dict[str, torch.Tensor]]
SUBJECTS: dict[str, tuple[Callable[[], Path], Any, int, int]] = {
    "wiki-llama-7m": (lambda: shared("models/wiki-llama-7m"), AutoModelForCausalLM, 64, 256),
    "all-MiniLM-L6-v2": (minilm, AutoModel, 128, 128),
}
"""Folder, class, samples, tokens a sample."""


def windows(folder: Path, samples: int, length: int) -> tuple[Batches, Batches]:
    """Calibration and test batches: the first windows of Wikipedia articles, none of them padded."""
    tokenizer, rows = AutoTokenizer.from_pretrained(folder), []
    for text in articles(shared(WIKIPEDIA), [], 2_000_000):
        ids = tokenizer(text)["input_ids"]
        rows += [ids[start : start + length] for start in range(0, len(ids) - length, length)]
        if len(rows) >= samples + TESTED:
            break
    ids = torch.tensor(rows[: samples + TESTED])
    made = [{"input_ids": part, "attention_mask": torch.ones_like(part)} for part in ids.split(BATCH)]
    return made[: samples // BATCH], made[samples // BATCH :]


@torch.no_grad()
def run(
    subject: str, data: tuple[Batches, Batches], dtype: torch.dtype, products: torch.dtype, plan: Plan | None
) -> tuple[torch.Tensor, Plan, list[list[int]]]:
    """Outputs on the test batches, the plan, and the units kept."""
    folder, kind, _, length = SUBJECTS[subject]
    model = kind.from_pretrained(folder(), dtype=dtype, attn_implementation="eager").eval()
    anatomy, trace = anatomy_of(model), Trace()
    budget = Budget(KEEP, Cost("params", length))

    def decide(curves: Any) -> Plan:
        if anatomy.entry.kind == "decoder":
            return uniform(curves, anatomy.sites, budget)
        return published(curves, anatomy.sites, budget, anatomy.entry.kind)

    found = stat(model, anatomy, data[0], plan or decide, partial(Gram, product_dtype=products), trace)
    outputs = torch.cat([model(**batch)[0].double() for batch in data[1]])
    return outputs, found, [site.kept for site in trace.sites]


def main() -> None:
    rows = []
    for subject, (folder, _, samples, length) in SUBJECTS.items():
        data = windows(folder(), samples, length)
        exact, plan, kept = run(subject, data, torch.float64, torch.float64, None)
        for products in (torch.float64, torch.float32):
            outputs, _, now = run(subject, data, torch.float32, products, plan)
            difference = outputs - exact
            rows.append(
                {
                    "subject": subject,
                    "tokens": samples * length,
                    "products": str(products).removeprefix("torch."),
                    "rms": float(difference.norm() / exact.norm()),
                    "largest": float(difference.abs().max()),
                    "reach": float(exact.abs().max()),
                    "same": now == kept,
                }
            )
    head = ["model in float32", "tokens", "products", "relative rms", "largest difference", "same units kept"]
    body = table(
        head,
        [
            [
                row["subject"],
                f"{row['tokens']:,}",
                row["products"],
                f"{row['rms']:.1e}",
                f"{row['largest']:.1e} of {row['reach']:.1f}",
                "yes" if row["same"] else "no",
            ]
            for row in rows
        ],
    )
    protocol = {
        "method": f"stat, keep {KEEP} of the parameters of the blocks; one plan, made in float64",
        "data": f"Wikipedia, windows without padding, batches of {BATCH}; outputs on {TESTED} other windows",
        "against": "the same run with model, products and sums in float64",
    }
    write("precision", "What float32 products change", protocol, body, rows)


if __name__ == "__main__":
    main()
