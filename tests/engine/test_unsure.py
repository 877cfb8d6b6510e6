"""Which samples damage is measured on, against entropies that scipy finds of the whole model's outputs."""

import pytest
import torch
from scipy.stats import entropy

from statprune.anatomy.lookup import anatomy_of
from statprune.budget.plan import Plan
from statprune.calibration.batches import Batch
from statprune.engine import unsure
from statprune.engine.divergence import NUMBERS, UNSURE, probe_batches
from statprune.engine.refit import refit
from statprune.engine.trace import Trace
from statprune.engine.unsure import to_probe
from tests.tiny import tiny_batch, tiny_model

LENGTH, TOKENS = 10, 45


def batches_of(model: torch.nn.Module) -> list[Batch]:
    made = [tiny_batch(model, rows=rows, length=LENGTH, seed=rows) for rows in (7, 1, 5)]
    made[0]["attention_mask"][2:5, 6:] = 0
    return made


def surest_last(model: torch.nn.Module, batches: list[Batch]) -> list[tuple[int, int]]:
    """(batch, row), by falling entropy."""
    found = []
    for number, batch in enumerate(batches):
        output = model(**batch, return_dict=True)
        if "logits" in output:
            choices = [output.logits.double()]
        else:
            hidden = ~batch["attention_mask"].bool()
            choices = [
                each.double().masked_fill(hidden, -torch.inf)
                for each in (output.start_logits, output.end_logits)
            ]
        nats = sum(entropy(each.softmax(-1).numpy(), axis=-1) for each in choices)
        found += [(float(value), number, row) for row, value in enumerate(nats)]
    return [(number, row) for _, number, row in sorted(found, reverse=True)]


@torch.no_grad()
@pytest.mark.parametrize(
    ("head", "labels"), [("BertForSequenceClassification", 3), ("BertForQuestionAnswering", 2)]
)
def test_labels_and_spans_are_probed_where_the_model_is_least_sure(
    head: str, labels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unsure, "PROBE_TOKENS", TOKENS)
    model = tiny_model("bert", head=head, num_labels=labels)
    batches = batches_of(model)
    told: list[tuple[str, int]] = []
    probe = to_probe(
        model, anatomy_of(model), batches, lambda stage, done, *_, **__: told.append((stage, done))
    )
    wanted, tokens = [], 0
    for number, row in surest_last(model, batches):
        tokens += int(batches[number]["attention_mask"][row].sum())
        if tokens > TOKENS:
            break
        wanted.append((number, row))
    assert 2 < len(wanted) < 13
    rows = [batches[number]["input_ids"][row] for number, row in sorted(wanted)]
    assert torch.equal(torch.cat([each["input_ids"] for each in probe]), torch.stack(rows))
    assert told == [("ask", done + 1) for done in range(len(anatomy_of(model).blocks))]


@torch.no_grad()
def test_one_sample_that_is_too_long_is_probed_nevertheless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unsure, "PROBE_TOKENS", 1)
    model = tiny_model("bert", head="BertForSequenceClassification", num_labels=3)
    batches = batches_of(model)
    (probe,) = to_probe(model, anatomy_of(model), batches)
    number, row = surest_last(model, batches)[0]
    assert torch.equal(probe["input_ids"], batches[number]["input_ids"][row : row + 1])


@torch.no_grad()
@pytest.mark.parametrize(
    ("family", "head", "of_tokens"),
    [
        ("llama", "LlamaForCausalLM", True),
        ("bert", "BertForTokenClassification", True),
        ("bert", "BertModel", True),
        ("bert", "BertForSequenceClassification", False),
    ],
)
def test_other_outputs_are_probed_on_every_fourth_sample(family: str, head: str, of_tokens: bool) -> None:
    """Of a score no entropy can be told; where each token has a choice, samples have many."""
    model = tiny_model(family, head=head, **({"num_labels": 1} if "Sequence" in head else {}))
    batches = batches_of(model)
    told: list[str] = []
    probe = to_probe(model, anatomy_of(model), batches, lambda stage, *_, **__: told.append(stage))
    wanted = probe_batches(batches, of_tokens=of_tokens)
    assert all(
        torch.equal(one["input_ids"], two["input_ids"]) for one, two in zip(probe, wanted, strict=True)
    )
    assert told == []


@torch.no_grad()
def test_what_came_out_is_measured_on_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unsure, "PROBE_TOKENS", TOKENS)
    model, dense = (tiny_model("bert", head="BertForSequenceClassification", num_labels=3) for _ in range(2))
    anatomy, batches, trace = anatomy_of(model), batches_of(model), Trace()
    probe = to_probe(dense, anatomy_of(dense), batches)
    refit(model, anatomy, batches, Plan({site.name: 2 for site in anatomy.sites}), trace)
    kls = []
    for batch in probe:
        p, q = (each(**batch).logits.double().softmax(-1).numpy() for each in (dense, model))
        kls += entropy(p, q, axis=-1).tolist()
    assert trace.damage == UNSURE
    assert trace.divergence == pytest.approx(sum(kls) / len(kls), rel=1e-4)
    assert sum(kls) > 1e-4


@torch.no_grad()
def test_a_score_is_measured_on_every_fourth_sample() -> None:
    model = tiny_model("bert", head="BertForSequenceClassification", num_labels=1)
    anatomy, trace = anatomy_of(model), Trace()
    refit(model, anatomy, batches_of(model), Plan({site.name: 2 for site in anatomy.sites}), trace)
    assert trace.damage == NUMBERS
