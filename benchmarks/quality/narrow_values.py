"""Whole models whose heads keep fewer directions of their values: as if cut, for they are only zeroed.

    STATPRUNE_SHARED=... python -m benchmarks.quality.narrow_values [--finetuned DIR] [--subject NAME]

Every head of every block keeps as many directions (within_heads.py has their basis), found behind the
choice of heads and the refit of values, in the thin stream; the consumer is fitted again. The rest of the
budget is shared out by the knapsack over the same measurement, with heads at the price they then have. A
row is added as soon as it is there.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

import statprune
from benchmarks.protocol import conditions, rows_of, table
from benchmarks.quality.subjects import Subject, subjects
from benchmarks.quality.within_heads import basis
from statprune.anatomy.lookup import anatomy_of
from statprune.anatomy.producers import module_at
from statprune.anatomy.sites import Site
from statprune.budget.allocate import Budget
from statprune.budget.cost import Cost
from statprune.budget.knapsack import knapsack
from statprune.engine.passage import Passage
from statprune.engine.refit import adapt, narrow, refit
from statprune.engine.trace import Trace
from statprune.linalg.least_squares import ridge
from statprune.linalg.moments import MomentSum

HERE = Path(__file__).parent
ROWS = HERE / "narrow-values.jsonl"
DAMPING = 1e-3


def narrow_values(at: Passage, site: Site, count: int, trace: Trace, directions: int) -> None:
    """Zero all but so many directions of each head's values, and fit the consumer to the rest."""
    if site.kind != "attention" or site.carrier is None or directions >= site.head_dim:
        return
    consumer, values = (module_at(at.block, path) for path in (site.consumer, site.carrier.path))
    outputs, columns = consumer.weight.shape
    constant = consumer.bias is not None
    total = MomentSum(
        columns, outputs, constant=constant, device=consumer.weight.device, products=torch.float64
    )
    for seen, target in at.targets(site):
        total.update(seen[site.consumer], target - consumer.bias if constant else target)
    found = total.moments()
    W = ridge(found.G, found.C, DAMPING).X.T
    A = torch.zeros(columns, columns).double()
    for start in range(0, columns, site.head_dim):
        head = slice(start, start + site.head_dim)
        A[head, start : start + directions] = basis(found.G[head, head], W[:, head])[:, :directions]
    kept = A.square().sum(0) > 0
    A /= A.norm(dim=0).clamp(min=1e-300)
    fit = torch.zeros(columns, outputs).double()
    fit[kept] = ridge(A[:, kept].T @ found.G @ A[:, kept], A[:, kept].T @ found.C, DAMPING).X
    values.weight.copy_(A.T @ values.weight.double())
    consumer.weight.copy_(fit.T)
    if values.bias is not None:
        values.bias.copy_(A.T @ values.bias.double())
    if constant:
        consumer.bias.add_(found.shift(A @ fit).to(consumer.bias.dtype))


def priced(sites: Any, cost: Cost, directions: int) -> list[Site]:
    """The sites, with heads that cost what they do with so many directions; of heads that share no keys."""
    made = []
    for site in sites:
        if site.kind != "attention":
            made.append(site)
            continue
        if site.group != 1:
            raise SystemExit(f"{site.name}: heads share keys; this counts only such as do not.")
        part = (site.head_dim + directions) / (2 * site.head_dim)
        macs = part * site.macs_per_unit - cost.context * (site.head_dim - directions)
        parameters = round(part * site.parameters_per_unit)
        made.append(replace(site, parameters_per_unit=parameters, macs_per_unit=round(macs)))
    return made


def run(
    subject: Subject, keeps: list[float], directions: list[int], seeds: list[int]
) -> Iterator[dict[str, Any]]:
    """A row for each."""
    dense = subject.open()
    scores = subject.judge(dense.model.eval(), dense.tokenizer)
    sites = anatomy_of(dense.model).sites
    for seed in seeds:
        samples = subject.draw(dense, subject.samples, seed)
        context = samples.protocol["seq_len"] if subject.of == "params" else samples.tokens // subject.samples
        cost = Cost(subject.of, int(context))
        measured = statprune.plan(
            subject.open().model, data=samples.batches, tokenizer=dense.tokenizer, latency=False
        )
        for keep in keeps:
            for each in directions:
                own = priced(sites, cost, each)
                whole, limit = cost.dense(own), keep * cost.dense(sites)
                plan = statprune.Plan({site.name: site.units for site in own})
                if limit < whole:
                    plan = knapsack(measured.curves, own, Budget(limit / whole, cost))
                opened, trace = subject.open(), Trace()
                model = opened.model.eval()
                steps = (adapt, narrow, partial(narrow_values, directions=each))
                refit(model, anatomy_of(model), samples.batches, plan, trace, steps=steps)
                found = subject.judge(model, opened.tokenizer)
                yield (
                    {"subject": subject.name, "keep": keep, "directions": each, "seed": seed}
                    | {"share": cost.of_plan(plan, own) / cost.dense(sites), "widths": dict(plan.widths)}
                    | {"damage": {name: subject.damage(scores[name], found[name]) for name in found}}
                    | {"divergence": subject.diverge(dense.model, model, opened.tokenizer)}
                )


def write_table(rows: list[dict[str, Any]]) -> str:
    """narrow-values.md."""
    lines = []
    for row in sorted(rows, key=lambda row: (row["subject"], -row["keep"], -row["directions"], row["seed"])):
        told = [
            ", ".join(f"{name} {value:.{digits}f}" for name, value in row[key].items())
            for key, digits in (("damage", 4), ("divergence", 5))
        ]
        known = (row["subject"], f"{row['keep']:g}", str(row["directions"]), str(row["seed"]))
        lines.append([*known, f"{row['share']:.3f}", *told])
    head = ["model", "budget", "directions a head", "seed", "share", "damage", "divergence"]
    text = (
        "## Narrowing the values of all heads\n\nWhat it would bring: directions are zeroed and counted as "
        "gone, not cut. All directions: method refit as it is. "
        "`python -m benchmarks.quality.narrow_values`\n\n"
        f"{table(head, lines)}\n"
    )
    (HERE / "narrow-values.md").write_text(text, encoding="utf-8")
    return text


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--finetuned", type=Path)
    parser.add_argument("--subject", default="wiki-llama-7m")
    parser.add_argument("--keep", type=float, action="append", required=True)
    parser.add_argument("--directions", type=int, action="append", required=True)
    parser.add_argument("--seed", type=int, action="append", required=True)
    given = parser.parse_args()
    subject = subjects(given.finetuned)[given.subject]()
    for row in run(subject, given.keep, given.directions, given.seed):
        with ROWS.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(row | {"conditions": conditions()}) + "\n")
    print(write_table(rows_of(ROWS)))


if __name__ == "__main__":
    main()
