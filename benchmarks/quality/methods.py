"""The methods of the matrix, all with one signature: narrow a model of the subject to a budget, in memory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any
from unittest.mock import patch

import torch

import statprune
from benchmarks.quality.peers import PEERS
from benchmarks.quality.subjects import Subject
from statprune.anatomy.lookup import anatomy_of
from statprune.anatomy.sites import Site
from statprune.budget.allocate import Budget
from statprune.budget.cost import Cost
from statprune.calibration.samples import Samples
from statprune.engine import refit as refits
from statprune.inputs import Opened


@dataclass(frozen=True)
class Made:
    """A narrowed model, the share that it keeps of what the budget counts, and what that took."""

    model: Any
    share: float
    seconds: float
    trace: dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One subject, its calibration samples for one seed, and a folder for measurements."""

    subject: Subject
    samples: Samples
    seed: int
    scratch: Path

    def open(self) -> Opened:
        """The dense model, anew."""
        return self.subject.open()

    def context(self) -> int:
        """Tokens that a token attends to, for counting MACs."""
        if self.subject.of == "params":
            return int(self.samples.protocol["seq_len"])
        return max(1, round(self.samples.tokens / self.samples.protocol["samples"]))


def ours(case: Case, keep: float, widths: str, **options: Any) -> Made:
    """Method refit from the one measurement of this case, which is made when the first budget asks for it."""
    folder = (
        case.scratch / f"{case.subject.name.replace(' ', '-')}-{case.samples.protocol['samples']}-{case.seed}"
    )
    opened = case.open()
    if not folder.exists():
        statprune.plan(
            opened.model, data=case.samples.batches, tokenizer=opened.tokenizer, out=folder, latency=False
        )
    return _compressed(case, opened, keep, measured=folder, widths=widths, **options)


def not_spliced(case: Case, keep: float) -> Made:
    """Ours, with fits on the samples as they are, however few (docs/decisions/0012-spliced-samples.md)."""
    with patch.object(refits, "added_to", lambda *_, **__: []):
        return ours(case, keep, "per-layer")


def stat(case: Case, keep: float, widths: str) -> Made:
    """STAT, by its published allocation ("per-layer") or with uniform widths."""
    opened = case.open()
    return _compressed(
        case, opened, keep, data=case.samples.batches, method="stat", widths=widths, seed=case.seed
    )


def _compressed(case: Case, opened: Opened, keep: float, **options: Any) -> Made:
    started, sites = perf_counter(), anatomy_of(opened.model).sites
    made = statprune.compress(
        opened.model, tokenizer=opened.tokenizer, keep=keep, of=case.subject.of, **options
    )
    share = _share(case, made.plan, sites)
    trace = {"seconds": made.trace.seconds, "predicted": made.trace.predicted, "held": made.trace.divergence}
    return Made(made.model, share, perf_counter() - started, trace | {"widths": dict(made.plan.widths)})


def _share(case: Case, plan: statprune.Plan, sites: Sequence[Site], added: int = 0) -> float:
    """Of what the budget counts, at the mean length of the samples; `sites` are the dense model's."""
    cost = Cost(case.subject.of, case.context())
    return (cost.of_plan(plan, sites) + added) / cost.dense(sites)


def peer(case: Case, keep: float, name: str) -> Made:
    """A method of peers.py."""
    opened, started = case.open(), perf_counter()
    model = opened.model.eval()
    anatomy = anatomy_of(model)
    before = sum(parameter.numel() for parameter in model.parameters())
    budget = Budget(keep, Cost(case.subject.of, case.context()))
    with torch.no_grad():
        plan = PEERS[name](
            model, anatomy, case.samples.batches, budget, torch.Generator().manual_seed(case.seed)
        )
    seconds = perf_counter() - started
    added = 0
    if case.subject.of == "params":  # what FLAP adds: biases
        counted = Cost("params", case.context())
        gone = counted.dense(anatomy.sites) - counted.of_plan(plan, anatomy.sites)
        added = sum(parameter.numel() for parameter in model.parameters()) - (before - gone)
    return Made(model, _share(case, plan, anatomy.sites, added), seconds, {"widths": dict(plan.widths)})


METHODS: dict[str, Callable[[Case, float], Made]] = {
    "ours": partial(ours, widths="per-layer"),
    "ours, uniform": partial(ours, widths="uniform"),
    "ours, samples as they are": not_spliced,
    "stat, published": partial(stat, widths="per-layer"),
    "stat, uniform": partial(stat, widths="uniform"),
    **{name: partial(peer, name=name) for name in PEERS},
}
