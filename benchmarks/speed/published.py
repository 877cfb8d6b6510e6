"""Ours beside the published procedure, in one run: the activations of BERT-base's layers, neurons and heads.

python -m benchmarks.speed.published [--minutes 12]

The published procedure, as in the authors' scripts, keeps all activations of a layer, and calls scipy's
column-pivoted QR on them in float64: for heads on flattened heads, which gives their order, and then QR of
the matrix in that order. Ours sums a Gram matrix batch by batch, and factors it. Both begin with the same
activations in memory and end with a curve of errors and the interpolation at half of the units; capturing is
the same work for both and counts for neither. As many layers are done as fit into the time.
"""

import argparse
from time import perf_counter
from typing import Any

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from benchmarks.speed.cost import CASES
from benchmarks.speed.report import keep, write
from statprune.anatomy.lookup import anatomy_of
from statprune.anatomy.sites import Site
from statprune.calibration.stream import advance, before_first_block
from statprune.engine.backends import maker_of
from statprune.engine.measure import consumer_weight, factor_of

CASE = "bert-base, stat"


def by_scipy(Z: Tensor, site: Site, W: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The units kept, in order, and T, from pivoted QR of all rows."""
    A, count = Z.double().numpy(), site.units // 2
    if site.kind == "attention":
        flat = A.reshape(len(A), site.units, site.columns).transpose(0, 2, 1).reshape(-1, site.units)
        order = scipy.linalg.qr(flat, mode="r", pivoting=True)[1]
        columns = (order[:, None] * site.columns + np.arange(site.columns)).ravel()
        R = scipy.linalg.qr(A[:, columns], mode="r")[0]
    else:
        scale = W.norm(dim=0).numpy()
        R, order = scipy.linalg.qr(A * scale, mode="r", pivoting=True)[0:2]
    width = count * site.columns
    T = scipy.linalg.solve_triangular(R[:width, :width], R[:width, width:])
    np.sqrt(np.cumsum(np.square(R[: R.shape[1]]).sum(axis=1)[::-1]))
    return order[:count], T


def by_ours(Z: Tensor, site: Site, block: Any, W: Tensor, make: Any) -> Any:
    """The same from a Gram matrix."""
    seen = make(site.units * site.columns)
    for rows in Z.split(4096):
        seen.update(rows)
    factor = factor_of(site, block, seen)
    factor.errors(W)
    return factor.interpolation(site.units // 2)


def activations(model: Any, anatomy: Any, batches: Any, index: int, stream: Any) -> dict[str, Tensor]:
    """What the consumers of block `index` read, (tokens, columns)."""
    seen: dict[str, list[Tensor]] = {site.consumer: [] for site in anatomy.sites_of_block(index)}
    advance(stream, anatomy.blocks[index], index, {path: rows.append for path, rows in seen.items()})
    return {path: torch.cat(rows) for path, rows in seen.items()}


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=12)
    parser.add_argument("--tokens", type=int, help="fewer than the case has")
    given = parser.parse_args()
    case = CASES[CASE]
    model, batches = case.model("cpu"), case.batches("cpu")
    if given.tokens:
        batches = batches[: max(1, given.tokens // batches[0]["input_ids"].numel())]
    anatomy, tokens = anatomy_of(model), sum(batch["input_ids"].numel() for batch in batches)
    make = maker_of(model, anatomy, batches)
    stream, started, rows = before_first_block(model, anatomy, batches), perf_counter(), []
    for index, block in enumerate(anatomy.blocks):
        seen = activations(model, anatomy, batches, index, stream)
        for site in anatomy.sites_of_block(index):
            Z, W = seen.pop(site.consumer), consumer_weight(site, block)
            begun = perf_counter()
            ours = by_ours(Z, site, block, W, make)
            between = perf_counter()
            order, _ = by_scipy(Z, site, W)
            ended = perf_counter()
            same = len(set(order.tolist()) & set(ours.kept.tolist()))
            rows.append(
                {
                    "case": f"{site.kind} of block {index}",
                    "columns": site.units * site.columns,
                    "tokens": tokens,
                    "threads": torch.get_num_threads(),
                    "ours": between - begun,
                    "published": ended - between,
                    "same": same,
                    "of": len(order),
                }
            )
            last = rows[-1]
            print(f"{last['case']}: {last['published'] / last['ours']:.1f} times, {same} of {len(order)}")
        if perf_counter() - started > given.minutes * 60:
            break
    keep("published", rows, whole=True)
    write()


if __name__ == "__main__":
    main()
