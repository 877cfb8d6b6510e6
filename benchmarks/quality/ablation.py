"""What each ingredient of method refit is worth: one more of them a row, on wiki-llama-7m.

    STATPRUNE_SHARED=... python -m benchmarks.quality.ablation [--seed 0 ...] [--keep 0.5 ...]

Writes ablation.md, which RESULTS.md includes. All rows but the last three have the same widths.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import log
from statistics import median
from typing import Any

import torch

import statprune
from benchmarks.protocol import conditions, rows_of, shared, table
from benchmarks.quality.report import HERE
from benchmarks.quality.subjects import decoder
from statprune.anatomy.lookup import anatomy_of
from statprune.budget.allocate import Budget
from statprune.engine.refit import Step, adapt, narrow, refit
from statprune.engine.trace import Trace
from statprune.linalg.held_out import NONE, Compensation
from statprune.linalg.moments import Moments

RESULTS = HERE / "ablation.jsonl"


def nothing(lost: Moments, held: Moments) -> Compensation:
    """No compensation: the consumer is fitted to its own dense weight on the thin stream."""
    return Compensation(torch.zeros_like(lost.C), NONE, 1.0)


def fixed(damping: float, lost: Moments, held: Moments) -> Compensation:
    """Full compensation with a damping set by hand."""
    B = torch.linalg.solve(
        lost.G + damping * lost.G.diagonal().mean() * torch.eye(len(lost.G), dtype=lost.G.dtype), lost.C
    )
    return Compensation(B, damping, held.error(B) / held.energy if held.energy > 0 else 1.0)


@dataclass(frozen=True)
class To:
    """What a model is narrowed on, and to: a plan, of which `keep` was the budget; values are whole in it.

    `narrower` is the plan of the same budget that narrows values too.
    """

    batches: list[Any]
    plan: statprune.Plan
    keep: float
    narrower: statprune.Plan


def stat(model: Any, to: To) -> None:
    """STAT's correction, at the widths of this plan."""
    statprune.compress(model, data=to.batches, plan=dict(to.plan.widths), method="stat")


def stepwise(steps: Sequence[Step] | None, model: Any, to: To) -> None:
    """The refit with these steps at every site, or those of the default."""
    refit(model, anatomy_of(model), to.batches, to.plan, Trace(), steps=steps)


def with_values_alone(model: Any, to: To) -> None:
    """No carrier of a perceptron is fitted."""
    anatomy = anatomy_of(model)
    sites = tuple(replace(site, activation=None) for site in anatomy.sites)
    refit(model, replace(anatomy, sites=sites), to.batches, to.plan, Trace())


def searched(model: Any, to: To) -> None:
    """With widths that the search finds for the same budget, values whole."""
    dim = max(site.head_dim for site in anatomy_of(model).sites)
    statprune.compress(model, data=to.batches, keep=to.keep, search=True, value_dim=dim)


def narrow_without_carriers(model: Any, to: To) -> None:
    """Values are narrowed, and neither they nor up and gate are fitted again."""
    steps = (adapt, partial(narrow, carry=False, value_dim=to.narrower.value_dim))
    refit(model, anatomy_of(model), to.batches, to.narrower, Trace(), steps=steps)


def with_narrow_values(model: Any, to: To) -> None:
    """The default: values are narrowed as far as this budget loses least."""
    refit(model, anatomy_of(model), to.batches, to.narrower, Trace())


WAYS: dict[str, Callable[[Any, To], None]] = {
    "STAT's cut, widths of least predicted damage": stat,
    "elimination, local fit on the thin stream": partial(
        stepwise, (partial(narrow, make_good=nothing, carry=False),)
    ),
    "compensation, damping 1e-3": partial(
        stepwise, (partial(narrow, make_good=partial(fixed, 1e-3), carry=False),)
    ),
    "compensation, damping by held-out samples": partial(stepwise, (partial(narrow, carry=False),)),
    "and adaptation": partial(stepwise, (adapt, partial(narrow, carry=False))),
    "and carriers of values": with_values_alone,
    "and carriers of up and gate": partial(stepwise, None),
    "and search": searched,
    "no search, no carriers, values narrowed": narrow_without_carriers,
    "and carriers: the default": with_narrow_values,
}
"""Each row's way to narrow a model in place."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--keep", type=float, nargs="+", default=[0.75, 0.5])
    given = parser.parse_args()
    subject = decoder("wiki-llama-7m", shared("models/wiki-llama-7m"))
    opened = subject.open()
    dense = subject.judge(opened.model, opened.tokenizer)
    rows = rows_of(RESULTS)
    for seed in given.seed:
        samples = subject.draw(opened, subject.samples, seed)
        measured = None
        for keep in given.keep:
            there = {row["what"] for row in rows if (row["keep"], row["seed"]) == (keep, seed)}
            missing = [name for name in WAYS if name not in there]
            if not missing:
                continue
            measured = measured or statprune.plan(opened.model, data=samples.batches, latency=False)
            budget = Budget(keep, measured.price("params"))
            whole = max(site.head_dim for site in measured.sites)
            plans = [measured.allocate(budget, "per-layer", value_dim=dim) for dim in (whole, None)]
            to = To(samples.batches, plans[0], keep, plans[1])
            for name in missing:
                model = subject.open().model
                with torch.no_grad():
                    WAYS[name](model, to)
                damage = {
                    key: log(found / dense[key])
                    for key, found in subject.judge(model, opened.tokenizer).items()
                }
                rows.append({"what": name, "keep": keep, "seed": seed, "damage": damage})
                print(rows[-1], flush=True)
                RESULTS.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    write(rows)


def write(rows: list[dict[str, Any]]) -> None:
    keeps = sorted({row["keep"] for row in rows}, reverse=True)
    columns = [(keep, metric) for keep in keeps for metric in ("WikiText-2", "C4")]
    lines = []
    for name in WAYS:
        cells = []
        for keep, metric in columns:
            found = [row["damage"][metric] for row in rows if (row["what"], row["keep"]) == (name, keep)]
            cells.append(f"{median(found):.4f}" if found else "")
        lines.append([name, *cells])
    seeds = sorted({row["seed"] for row in rows})
    text = (
        "## Ablation\n\nwiki-llama-7m, damage, median over seeds "
        f"{', '.join(map(str, seeds))}; one ingredient more a row. "
        "`python -m benchmarks.quality.ablation`\n\n"
        + table(["", *(f"{keep:g} {metric}" for keep, metric in columns)], lines)
        + f"\n\n{conditions()['torch']}, {conditions()['transformers']}\n"
    )
    print(text)
    (HERE / "ablation.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
