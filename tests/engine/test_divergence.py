"""How far outputs are apart, by hand for every kind of head; which samples are held out."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax

from statprune.anatomy.lookup import anatomy_of
from statprune.calibration.stream import advance, before_first_block
from statprune.engine.divergence import (
    CHOICES,
    NUMBERS,
    UNSURE,
    Outputs,
    Reference,
    first_of,
    held_out,
    probe_batches,
)
from statprune.engine.probe import Probe
from statprune.errors import NonFiniteError
from tests.tiny import tiny_batch, tiny_model

HEADS: list[tuple[str, str, dict[str, Any]]] = [
    ("llama", "LlamaForCausalLM", {}),
    ("bert", "BertForMaskedLM", {}),
    ("bert", "BertForTokenClassification", {"num_labels": 3}),
    ("bert", "BertForSequenceClassification", {"num_labels": 3}),
    ("bert", "BertForSequenceClassification", {"num_labels": 1}),
    ("bert", "BertForQuestionAnswering", {}),
    ("bert", "BertModel", {}),
]


@torch.no_grad()
@pytest.mark.parametrize(("family", "head", "options"), HEADS)
def test_the_divergence_by_hand(family: str, head: str, options: dict[str, Any]) -> None:
    model, other = tiny_model(family, head=head, **options), tiny_model(family, head=head, seed=5, **options)
    batch = tiny_batch(model, rows=6, length=10)
    batch["attention_mask"][1:3, 7:] = 0
    real = batch["attention_mask"].bool()
    # Heads alike, blocks not.
    state = model.state_dict()
    blocks = {name for name in state if any(part.isdigit() for part in name.split("."))}
    other.load_state_dict(
        {name: other.state_dict()[name] if name in blocks else state[name] for name in state}
    )
    finals = []
    for each in (model, other):
        stream = before_first_block(each, anatomy_of(each), [batch])
        for index, block in enumerate(anatomy_of(each).blocks):
            advance(stream, block, index)
        finals.append(stream.hidden)
    outputs = Outputs(model, anatomy_of(model), [batch], finals[0])
    found = outputs.divergence(finals[1])
    assert outputs.divergence(finals[0]) == pytest.approx(0, abs=1e-9)

    dense, thin = (each(**batch, return_dict=True) for each in (model, other))
    if hasattr(dense, "start_logits"):
        ends = [
            (np.where(real, one, -np.inf), np.where(real, two, -np.inf))
            for one, two in ((dense.start_logits, thin.start_logits), (dense.end_logits, thin.end_logits))
        ]
        kls = []
        for one, two in ends:
            p, q = (log_softmax(each, axis=-1) for each in (one, two))
            kls.append(
                np.where(real, np.exp(p) * (np.nan_to_num(p, neginf=0) - np.nan_to_num(q, neginf=0)), 0).sum(
                    -1
                )
            )
        wanted, unit = np.mean(kls), UNSURE
    elif hasattr(dense, "last_hidden_state"):
        one, two = dense.last_hidden_state[real], thin.last_hidden_state[real]
        wanted, unit = float((one - two).square().sum() / one.square().sum()), NUMBERS
    elif dense.logits.shape[-1] == 1:
        one, two = dense.logits, thin.logits
        wanted, unit = float((one - two).square().sum() / (one - one.mean()).square().sum()), NUMBERS
    elif head == "BertForSequenceClassification":
        p, q = (log_softmax(each.logits.double().numpy(), axis=-1) for each in (dense, thin))
        wanted, unit = (np.exp(p) * (p - q)).sum(-1).mean(), UNSURE
    else:
        one, two = (each.logits[real] for each in (dense, thin))
        p, q = (log_softmax(each.double().numpy(), axis=-1) for each in (one, two))
        wanted, unit = (np.exp(p) * (p - q)).sum(-1).mean(), CHOICES
    assert found == pytest.approx(float(wanted), rel=1e-4)
    assert found > 1e-4
    assert outputs.unit == unit


def test_every_fourth_sample_is_held_out_whatever_the_batches() -> None:
    lengths = (5, 1, 7, 3)
    batches = [
        {
            "input_ids": torch.zeros(rows, 4, dtype=torch.long),
            "attention_mask": torch.ones(rows, 4, dtype=torch.long),
        }
        for rows in lengths
    ]
    rows = held_out(batches)
    starts = np.cumsum([0, *lengths[:-1]])
    numbers = [int(row) + int(start) for start, each in zip(starts, rows, strict=True) for row in each]
    assert numbers == [3, 7, 11, 15]
    assert [len(each) for each in first_of(batches, rows, 8)] == [1, 0, 1, 0]
    assert [len(each) for each in first_of(batches, rows, 1)] == [1, 0, 0, 0], "at least one"
    many = [tiny_batch(tiny_model("llama"), rows=64, length=16, seed=1)]
    (probe,) = probe_batches(many, of_tokens=True)
    held = many[0]["input_ids"][3::4]
    assert torch.equal(probe["input_ids"], held[: 64 * 16 // 32 // 4, :4]), "a thirty-second, in beginnings"
    assert probe["attention_mask"].shape == probe["input_ids"].shape
    assert sum(len(batch["input_ids"]) for batch in probe_batches(many, of_tokens=False)) == 64 // 4


def test_samples_with_padding_in_front_are_probed_whole() -> None:
    batch = tiny_batch(tiny_model("llama"), rows=64, length=16, seed=1)
    batch["attention_mask"][7, :3] = 0
    (probe,) = probe_batches([batch], of_tokens=True)
    assert torch.equal(probe["input_ids"], batch["input_ids"][3:8:4])


@torch.no_grad()
def test_what_is_tried_out_goes_on_beside_the_dense_model() -> None:
    """Three tries, each of one block; the outputs of such models as a whole say the same."""
    model = tiny_model("llama").double()
    anatomy, batch = anatomy_of(model), tiny_batch(model)
    probe = Probe(model, anatomy, [batch])
    dense, wanted = model(**batch).logits, []
    for index, block in enumerate(anatomy.blocks):
        site = anatomy.sites_of_block(index)[1]
        for width, factor in ((3, 1.0), (5, 0.5)) if index == 1 else ((7, 0.7),):
            weight = block.mlp.down_proj.weight
            before = weight.clone()
            probe.try_out(block, site, width, factor * weight)
            assert torch.equal(weight, before)
            weight.mul_(factor)
            p, q = (torch.log_softmax(each.float(), dim=-1) for each in (dense, model(**batch).logits))
            wanted.append(float((p.exp() * (p - q)).sum(dim=-1).mean()))
            weight.copy_(before)
        probe.advance(block, index)
    found, unit = probe.divergences()
    assert unit == CHOICES
    assert [[width for width, _ in each] for each in found.values()] == [[7], [3, 5], [7]]
    values = [value for each in found.values() for _, value in each]
    assert values == pytest.approx(wanted, rel=1e-3, abs=1e-6)
    assert [each > 1e-4 for each in values] == [True, False, True, True]


def test_a_choice_that_is_masked_by_minus_infinity_counts_nothing() -> None:
    """A vocabulary that is larger than the tokenizer's, say."""
    generator = torch.Generator().manual_seed(0)
    dense, thin = (torch.randn(5, 7, generator=generator) for _ in range(2))
    wide = [torch.cat([each, torch.full((5, 2), -torch.inf)], dim=1) for each in (dense, thin)]
    found = Reference(wide[0], numbers=False).distance(wide[1])
    assert found == pytest.approx(Reference(dense, numbers=False).distance(thin), rel=1e-6)
    assert found > 1


@pytest.mark.parametrize("numbers", [False, True])
@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
def test_outputs_that_are_no_numbers_are_not_taken_for_equal(wrong: float, numbers: bool) -> None:
    dense = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    thin = dense.clone()
    thin[2, 3] = wrong
    with pytest.raises(
        NonFiniteError, match=r"outputs of the thinned model are .*: 1 of 35 are NaN or infinite"
    ):
        Reference(dense, numbers=numbers).distance(thin)
