"""Narrowing heads from within against dropping whole heads: what the consumer's output loses, block by block.

    STATPRUNE_SHARED=... python -m benchmarks.quality.within_heads

Both keep the same share of the attention's weights. Whole heads: the cheapest are eliminated. Values: those
of every head are turned so that the directions come first that the consumer's output needs most
(`linalg/head_basis.py`), and then directions are eliminated over all heads; queries and keys stay, so twice
the share of directions goes. All four, where no rotary embedding stands in the way: every head keeps as many
directions, of queries and keys those of the best approximation of the scores in the metric of what they
read. The consumer is fitted to the dense output on one half of the samples; errors are of the other half.
"""

import json
from collections.abc import Iterator
from math import sqrt
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.protocol import conditions, table
from benchmarks.quality.subjects import subjects
from statprune.anatomy.lookup import anatomy_of
from statprune.anatomy.producers import module_at
from statprune.anatomy.sites import Site
from statprune.calibration.stream import advance, before_first_block, until
from statprune.linalg.elimination import eliminate
from statprune.linalg.head_basis import head_basis
from statprune.linalg.least_squares import ridge

HERE = Path(__file__).parent
DAMPING = 1e-4
SHARES = (0.875, 0.75, 0.625)
SUBJECTS = ("wiki-llama-7m", "stsb-cosine")


def read(stream: Any, block: nn.Module, site: Site) -> tuple[Tensor, Tensor]:
    """What the producers read, and what the consumer reads, all tokens, float64."""
    path = site.producers[0].path
    seen = [
        (each[path], each[site.consumer]) for each in until(stream, block, site.block, site.consumer, [path])
    ]
    X, Z = (torch.cat([pair[n] for pair in seen]).double() for n in (0, 1))
    return X, Z


def error(Z: Tensor, W: Tensor, new: Tensor) -> float:
    """Of the best consumer of `new` (rows, columns) for Z W^T: 64 rows are fitted, the next 64 judged."""
    target, fit = Z @ W.T, (torch.arange(len(Z)) // 64) % 2 == 0
    B = ridge(new[fit].T @ new[fit], new[fit].T @ target[fit], DAMPING).X
    return float((new[~fit] @ B - target[~fit]).square().sum() / target[~fit].square().sum())


def whole_heads(Z: Tensor, W: Tensor, site: Site, keep: float) -> float:
    """The cheapest heads dropped."""
    kept = eliminate(Z.T @ Z, W.T, unit=site.columns, damping=DAMPING).order[: round(keep * site.units)]
    return error(Z, W, Z[:, site.columns_of(kept.sort().values)])


def turned(Z: Tensor, W: Tensor, width: int) -> Tensor:
    """Z, head by head in its basis: the first columns matter most to what W makes of it."""
    return Z @ head_basis(Z.T @ Z, W, width)


def values_within(Z: Tensor, W: Tensor, site: Site, keep: float) -> float:
    """Directions of the values dropped; queries and keys are half of the weights."""
    new = turned(Z, W, site.head_dim)
    B = ridge(new.T @ new, new.T @ (Z @ W.T), DAMPING).X
    kept = eliminate(new.T @ new, B, damping=DAMPING).order[: round((2 * keep - 1) * Z.shape[1])]
    return error(Z, W, new[:, kept])


def all_within(stream: Any, block: nn.Module, site: Site, X: Tensor, Z: Tensor, keep: float) -> float:
    """Every head's queries, keys and values in as few directions each."""
    W, rank = module_at(block, site.consumer).weight.double(), round(keep * site.head_dim)
    query, key = (module_at(block, site.producers[n].path) for n in (0, 1))
    before = [each.clone() for layer in (query, key) for each in (layer.weight, layer.bias)]
    X = torch.cat([X, torch.ones(len(X), 1).double()], dim=1)
    L = torch.linalg.cholesky(X.T @ X / len(X) + 1e-6 * torch.eye(X.shape[1]).double())
    try:
        for start in range(0, site.units * site.head_dim, site.head_dim):
            rows = slice(start, start + site.head_dim)
            q, k = (
                torch.cat([layer.weight[rows], layer.bias[rows, None]], dim=1).double()
                for layer in (query, key)
            )
            U, S, V = torch.linalg.svd((q @ L).T @ (k @ L), full_matrices=False)
            for layer, side in ((query, U), (key, V.T)):
                half = torch.zeros(site.head_dim, len(L)).double()
                half[:rank] = (side[:, :rank] * S[:rank].sqrt()).T
                made = torch.linalg.solve_triangular(L.T, half.T, upper=True).T
                layer.weight[rows], layer.bias[rows] = made[:, :-1].float(), made[:, -1].float()
        new = turned(read(stream, block, site)[1], W, site.head_dim)
    finally:
        for old, own in zip(before, (query.weight, query.bias, key.weight, key.bias), strict=True):
            own.copy_(old)
    each = torch.arange(Z.shape[1]).reshape(site.units, -1)[:, :rank].flatten()
    return error(Z, W, new[:, each])


@torch.no_grad()
def measured(name: str) -> Iterator[dict[str, Any]]:
    """Relative errors of every block's attention, by way and share."""
    subject = subjects(None)[name]()
    opened = subject.open()
    batches = subject.draw(opened, subject.samples, 0).batches
    model = opened.model.eval()
    anatomy = anatomy_of(model)
    stream = before_first_block(model, anatomy, batches)
    for index, block in enumerate(anatomy.blocks):
        site = next(each for each in anatomy.sites_of_block(index) if each.kind == "attention")
        X, Z = read(stream, block, site)
        W = module_at(block, site.consumer).weight.double()
        for keep in SHARES:
            row = {"subject": name, "tokens": len(Z), "block": index, "keep": keep}
            row |= {"whole heads": whole_heads(Z, W, site, keep), "values": values_within(Z, W, site, keep)}
            if model.config.model_type == "bert":
                row["all four"] = all_within(stream, block, site, X, Z, keep)
            yield row
        advance(stream, block, index)


def main() -> None:
    rows = [row for name in SUBJECTS for row in measured(name)]
    ways = ("whole heads", "values", "all four")
    lines = []
    for name in SUBJECTS:
        for keep in SHARES:
            of = [row for row in rows if (row["subject"], row["keep"]) == (name, keep)]
            for way in ways if "all four" in of[0] else ways[:2]:
                each = [sqrt(row[way]) for row in of]
                told = [f"{sum(each) / len(each):.3f}", ", ".join(f"{value:.3f}" for value in each)]
                lines.append([name, str(of[0]["tokens"]), f"{keep:g}", way, *told])
    head = ["model", "tokens", "share kept", "narrowed", "mean error", "block by block"]
    text = (
        "## Narrowing heads from within\n\nRelative error (root of squares) of each block's attention alone, "
        "with the same share of its weights kept, consumer fitted, on samples not fitted to; calibration "
        f"text of the subject, seed 0. `python -m benchmarks.quality.within_heads`\n\n{table(head, lines)}\n"
    )
    (HERE / "within-heads.md").write_text(text, encoding="utf-8")
    (HERE / "within-heads.json").write_text(
        json.dumps({"rows": rows, "conditions": conditions()}, indent=1) + "\n"
    )
    print(text)


if __name__ == "__main__":
    main()
