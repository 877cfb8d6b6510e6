"""What the formula counts for every unit is what a run keeps of it until the end."""

import tracemalloc

import pytest
import torch

from statprune.anatomy.lookup import anatomy_of
from statprune.budget.curves import Curve
from statprune.engine.memory import LEFT, LEFT_OF_UNIT, needed
from statprune.engine.trace import Trace
from tests.tiny import tiny_batch, tiny_model


def test_a_unit_leaves_no_more_than_is_counted() -> None:
    """Its numbers in the curves, and in the trace and the record, if all are kept.

    Within 5%: one more number a unit would be 11%. First calls, and coverage where it looks on, leave some
    kilobytes.
    """
    site, units = anatomy_of(tiny_model("llama")).sites[0], 20_000
    curve = Curve(*(torch.zeros(units + more, dtype=torch.float64) for more in (1, 1, 0)))
    numbers = sum(each.nbytes for each in vars(curve).values())
    kept, trace = torch.arange(units), Trace()
    tracemalloc.start()
    try:
        trace.add(site, kept.tolist(), 0.1, 1.0, units)
        record = trace.to_json()
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(record["sites"][0]["kept"]) == units
    assert 0.8 * LEFT_OF_UNIT * units < numbers + held < 1.05 * LEFT_OF_UNIT * units


@pytest.mark.parametrize("family", ["llama", "mixtral"])
def test_depth_costs_what_blocks_and_units_leave(family: str) -> None:
    few, many = (tiny_model(family, num_hidden_layers=blocks) for blocks in (2, 12))
    batches = [tiny_batch(few, rows=4, length=16)]
    shallow, deep = (needed(model, anatomy_of(model), batches, "stat") for model in (few, many))
    units = sum(site.units * (site.experts or 1) for site in anatomy_of(few).sites_of_block(0))
    assert deep.outside - shallow.outside == 10 * (LEFT + LEFT_OF_UNIT * units)
    assert (deep.block, deep.site, deep.hidden) == (shallow.block, shallow.site, shallow.hidden)


def test_samples_of_a_classifier_are_tried_on_whole() -> None:
    """A language model's are tried on a thirty-second of the tokens; both have two streams of them all."""
    hidden = []
    for head in ("BertForMaskedLM", "BertForSequenceClassification"):
        model = tiny_model("bert", head=head)
        batches, of_tokens = [tiny_batch(model, rows=64, length=32)], head == "BertForMaskedLM"
        hidden.append(needed(model, anatomy_of(model), batches, "refit", of_tokens=of_tokens).hidden)
    tokens, size = 64 * 32, int(model.config.hidden_size) * 4
    tries = 2 * len(anatomy_of(model).sites)
    assert hidden[1] - hidden[0] == tries * (tokens - tokens // 32) * size
