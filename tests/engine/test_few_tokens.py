"""Where tokens are few, fits see spliced samples besides; measured and held out are those as they are."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from scipy.stats import entropy

from statprune.anatomy.lookup import anatomy_of
from statprune.budget.plan import Plan
from statprune.calibration.batches import Batch
from statprune.engine import few_tokens
from statprune.engine import refit as refits
from statprune.engine.carriers import ENOUGH
from statprune.engine.divergence import CHOICES, NUMBERS, UNSURE, held_out
from statprune.engine.few_tokens import COPIES, FEWEST, added_to, wanted_of
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


def texts(model: Any) -> list[Batch]:
    made = [tiny_batch(model, rows=rows, length=length, seed=n) for n, (rows, length) in enumerate(ROWS)]
    made[0]["attention_mask"][2:5, 6:] = 0
    return made


def tokens_in(batches: list[Batch]) -> int:
    return sum(int(batch["attention_mask"].sum()) for batch in batches)


def rows_in(batches: list[Batch]) -> int:
    return sum(len(batch["input_ids"]) for batch in batches)


def added(model: Any, batches: list[Batch]) -> list[Batch]:
    return added_to(anatomy_of(model), batches, ENOUGH)


def halves(model: Any) -> Plan:
    return Plan({site.name: max(1, site.units // 2) for site in anatomy_of(model).sites})


@pytest.mark.parametrize("wanted", [ENOUGH, FEWEST])
@pytest.mark.parametrize("samples", [2, 4, *range(8, 112, 4)])
def test_as_many_are_added_as_tokens_are_wanted(samples: int, wanted: int) -> None:
    model = classifier()
    width, length = model.config.hidden_size, 24
    batch = tiny_batch(model, rows=samples, length=length)
    fit, tokens = samples - samples // 4, samples * length
    copies = next((n for n in range(COPIES) if tokens + n * fit * length >= wanted * width), COPIES)
    if tokens + copies * fit * length < ENOUGH * width:  # not even so for carriers
        copies = COPIES if tokens < FEWEST * width else 0
    found = added_to(anatomy_of(model), [batch], wanted)
    assert rows_in(found) == min(copies, fit - 1) * fit  # with each other one at most once


def test_where_tokens_are_few_some_are_added_though_no_carrier_can_be_fitted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = classifier()
    batches = texts(model)
    few = [{name: value[:, :4] for name, value in batch.items()} for batch in batches]
    assert FEWEST * model.config.hidden_size > tokens_in(few)
    for wanted, enough in ((FEWEST, True), (ENOUGH, False)):
        monkeypatch.setattr(few_tokens, "worthwhile", lambda *_, found=enough: found)
        assert added_to(anatomy_of(model), batches, wanted) == []
        assert added_to(anatomy_of(model), few, wanted)
        assert added_to(anatomy_of(model), few, 0) == []


def test_what_is_wanted_goes_by_what_the_outputs_are() -> None:
    assert wanted_of(UNSURE, of_tokens=False) == wanted_of(NUMBERS, of_tokens=False) == ENOUGH
    assert wanted_of(NUMBERS, of_tokens=True) == FEWEST
    assert wanted_of(CHOICES, of_tokens=True) == 0


def test_none_are_made_of_samples_that_are_held_out() -> None:
    model = classifier()
    batches = texts(model)
    for batch in batches:
        batch["input_ids"][:] = 1
    for batch, apart in zip(batches, held_out(batches), strict=True):
        batch["input_ids"][apart] = 2
    made = added(model, batches)
    assert made
    assert all(bool((batch["input_ids"][batch["attention_mask"].bool()] == 1).all()) for batch in made)


@torch.no_grad()
def test_the_trace_says_how_many_and_the_divergence_is_of_the_samples_as_they_are() -> None:
    model, dense = classifier(), classifier()
    batches, trace, anatomy = texts(model), Trace(), anatomy_of(model)
    refit(model, anatomy, batches, Plan({site.name: 2 for site in anatomy.sites}), trace)
    assert trace.spliced == rows_in(added(dense, batches)) > 0
    kls = []
    for batch in batches:  # they have fewer tokens than are measured on
        p, q = (each(**batch).logits.double().softmax(-1).numpy() for each in (dense, model))
        kls += entropy(p, q, axis=-1).tolist()
    assert trace.divergence == pytest.approx(sum(kls) / len(kls), rel=1e-4)
    assert sum(kls) > 1e-4


@torch.no_grad()
def test_none_are_added_in_a_trial_or_where_nothing_is_narrowed() -> None:
    for options, plan in (({"splice": False}, None), ({}, {})):
        model, trace = classifier(), Trace()
        anatomy = anatomy_of(model)
        whole = Plan({site.name: site.units for site in anatomy.sites})
        refit(model, anatomy, texts(model), whole if plan == {} else halves(model), trace, **options)
        assert trace.spliced == 0


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_every_row_belongs_to_one_process_and_none_that_is_added_is_held_out(ranks: int) -> None:
    model = classifier()
    batches = texts(model)
    more = added(model, batches)
    parts = [Data.of(batches, Rank(rank, ranks), more) for rank in range(ranks)]
    rows = sorted(tuple(row.tolist()) for part in parts for batch in part.batches for row in _rows(batch))
    assert rows == sorted(tuple(row.tolist()) for batch in (*batches, *more) for row in _rows(batch))
    held = sorted(
        tuple(_rows(batch)[row].tolist())
        for part in parts
        for batch, each in zip(part.batches, part.held, strict=True)
        for row in each
    )
    expected = [
        tuple(_rows(batch)[row].tolist())
        for batch, each in zip(batches, held_out(batches), strict=True)
        for row in each
    ]
    assert held == sorted(expected)
    assert sum(len(each) for part in parts for each in part.adapted(10**9)) == len(rows)


def _rows(batch: Batch) -> torch.Tensor:
    return batch["input_ids"]


def test_memory_counts_the_hidden_states_of_spliced_samples() -> None:
    model = classifier()
    batches, anatomy = texts(model), anatomy_of(model)
    tokens = sum(batch["input_ids"].numel() for batch in added(model, batches))
    more, plain = (
        needed(model, anatomy, batches, "refit", of_tokens=False, wanted=each) for each in (ENOUGH, 0)
    )
    assert (more.most - more.least) - (plain.most - plain.least) == 8 * tokens * model.config.hidden_size * 4
    assert len({needed(model, anatomy, batches, "stat", of_tokens=each).most for each in (True, False)}) == 1


@torch.no_grad()
@pytest.mark.parametrize(
    ("head", "rows", "length"), [("BertForSequenceClassification", 40, 24), ("BertModel", 8, 8)]
)
def test_fits_with_them_do_better_on_new_texts(
    monkeypatch: pytest.MonkeyPatch, head: str, rows: int, length: int
) -> None:
    """Of ten draws of calibration texts."""
    dense = tiny_model("bert", head=head, **{} if head == "BertModel" else {"num_labels": 3})

    def drawn(seed: int, rows: int) -> Batch:
        return tiny_batch(dense, rows=rows, length=length, seed=seed)

    def left(seed: int) -> float:
        model, new, trace = deepcopy(dense), drawn(10_000 + seed, 64), Trace()
        refit(model, anatomy_of(model), [drawn(seed, rows)], halves(model), trace)
        assert (trace.spliced > 0) is (refits.added_to is added_to)
        return float((model(**new)[0] - dense(**new)[0]).square().sum())

    with_them = [left(seed) for seed in range(10)]
    monkeypatch.setattr(refits, "added_to", lambda *_, **__: [])
    without = [left(seed) for seed in range(10)]
    assert sum(a < b for a, b in zip(with_them, without, strict=True)) >= 8
    assert sum(with_them) < 0.9 * sum(without)
