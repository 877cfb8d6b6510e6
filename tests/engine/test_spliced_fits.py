"""Where tokens are few, fits see spliced samples besides; measured and held out are those as they are."""

from typing import Any

import pytest
import torch
from scipy.stats import entropy

from statprune.anatomy.lookup import anatomy_of
from statprune.budget.plan import Plan
from statprune.calibration.batches import Batch
from statprune.calibration.splice import spliced
from statprune.engine import refit as refits
from statprune.engine.divergence import held_out
from statprune.engine.memory import needed
from statprune.engine.passage import Data
from statprune.engine.refit import refit
from statprune.engine.trace import Trace
from tests.tiny import tiny_batch, tiny_model

ROWS = ((9, 24), (1, 24), (40, 30))


class Rank:
    """One of several processes, as far as sharing out goes."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size, self.local = rank, size, rank

    same = collected = None


def classifier() -> Any:
    return tiny_model("bert", head="BertForSequenceClassification", num_labels=3)


def texts(model: Any, seed: int = 0) -> list[Batch]:
    made = [
        tiny_batch(model, rows=rows, length=length, seed=seed + n) for n, (rows, length) in enumerate(ROWS)
    ]
    made[0]["attention_mask"][2:5, 6:] = 0
    return made


def joined(model: Any, batches: list[Batch]) -> list[Batch]:
    found = spliced(batches, "encoder", model.config.hidden_size)
    assert found
    return found


@torch.no_grad()
def test_the_trace_says_how_many_and_the_divergence_is_of_the_samples_as_they_are() -> None:
    model, dense = classifier(), classifier()
    batches, trace, anatomy = texts(model), Trace(), anatomy_of(model)
    refit(model, anatomy, batches, Plan({site.name: 2 for site in anatomy.sites}), trace)
    assert trace.spliced == sum(len(batch["input_ids"]) for batch in joined(dense, batches))
    kls = []
    for batch in batches:  # they have fewer tokens than are measured on
        p, q = (each(**batch).logits.double().softmax(-1).numpy() for each in (dense, model))
        kls += entropy(p, q, axis=-1).tolist()
    assert trace.divergence == pytest.approx(sum(kls) / len(kls), rel=1e-4)
    assert sum(kls) > 1e-4


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_every_row_belongs_to_one_process_and_none_that_is_added_is_held_out(ranks: int) -> None:
    model = classifier()
    batches = texts(model)
    added = joined(model, batches)
    parts = [Data.of(batches, Rank(rank, ranks), added) for rank in range(ranks)]
    rows = sorted(
        tuple(row.tolist()) for part in parts for batch in part.batches for row in batch["input_ids"]
    )
    assert rows == sorted(tuple(row.tolist()) for batch in (*batches, *added) for row in batch["input_ids"])
    held = sorted(
        tuple(batch["input_ids"][row].tolist())
        for part in parts
        for batch, each in zip(part.batches, part.held, strict=True)
        for row in each
    )
    expected = [
        tuple(batch["input_ids"][row].tolist())
        for batch, each in zip(batches, held_out(batches), strict=True)
        for row in each
    ]
    assert held == sorted(expected)
    every = parts[0].adapted(10**9)
    assert sum(len(each) for part in parts for each in part.adapted(10**9)) == len(rows)
    assert len(every) == len(parts[0].batches)


def test_memory_counts_the_hidden_states_of_spliced_samples() -> None:
    model = classifier()
    batches = texts(model)
    added = joined(model, batches)
    tokens = [sum(batch["input_ids"].numel() for batch in each) for each in (batches, added)]
    images = [{**batch, "position_ids": batch["input_ids"]} for batch in batches]  # cannot be joined
    more, plain = (
        needed(model, anatomy_of(model), each, "refit").most
        - needed(model, anatomy_of(model), each, "refit").least
        for each in (batches, images)
    )
    assert more - plain == 8 * tokens[1] * model.config.hidden_size * 4
    assert tokens[1] > 0
    same = {needed(model, anatomy_of(model), each, "stat").most for each in (batches, images)}
    assert len(same) == 1


@torch.no_grad()
def test_fits_with_them_do_better_on_new_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of ten draws of calibration texts; tokens that follow each other are drawn alike in all of them."""
    dense = classifier()

    def drawn(seed: int, rows: int) -> Batch:
        return tiny_batch(dense, rows=rows, length=24, seed=seed)

    def left(seed: int) -> float:
        model, new = classifier(), drawn(10_000 + seed, 64)
        anatomy = anatomy_of(model)
        plan = Plan({site.name: max(1, site.units // 2) for site in anatomy.sites})
        refit(model, anatomy, [drawn(seed, 40)], plan, Trace())
        return float((model(**new).logits - dense(**new).logits).square().sum())

    with_them = [left(seed) for seed in range(10)]
    monkeypatch.setattr(refits, "spliced", lambda *_: [])
    without = [left(seed) for seed in range(10)]
    assert sum(a < b for a, b in zip(with_them, without, strict=True)) >= 8
    assert sum(with_them) < 0.9 * sum(without)
