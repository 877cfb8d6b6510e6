"""Samples joined of two each: how many, of which tokens, and of what they are not made."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from statprune.calibration import splice
from statprune.calibration.splice import COPIES, LEAST, WANTED, spliced

Texts = dict[str, Tensor]


def texts(lengths: list[int], first: int = 0) -> Texts:
    """Rows of these lengths, padded on the right; a token's number tells row and place."""
    longest = max(lengths)
    places = torch.arange(longest)
    mask = (places < torch.tensor(lengths)[:, None]).long()
    ids = 1 + 1000 * (first + torch.arange(len(lengths)))[:, None] + places
    return {"input_ids": ids * mask, "attention_mask": mask, "token_type_ids": (places >= 2).long() * mask}


def tokens_in(batches: list[Texts]) -> int:
    return sum(int(batch["attention_mask"].sum()) for batch in batches)


LENGTHS = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=7), min_size=1, max_size=4)


@given(LENGTHS)
def test_a_sample_begins_as_one_and_goes_on_as_another_of_its_batch(sizes: list[list[int]]) -> None:
    given = [texts(lengths, 10 * number) for number, lengths in enumerate(sizes)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(splice, "WANTED", {"encoder": 10**6})
        patch.setattr(splice, "LEAST", 0)
        made = spliced(given, "encoder", 1)
    batches = [batch for _ in range(COPIES) for batch in given]
    expected = [
        batch
        for copy, batch in zip([c for c in range(1, COPIES + 1) for _ in given], batches, strict=True)
        if copy < len(batch["input_ids"])
    ]
    assert len(made) == len(expected)
    for batch, source in zip(made, expected, strict=True):
        assert set(batch) == set(source)
        for row, mask in enumerate(batch["attention_mask"]):
            length = int(mask.sum())
            assert mask.tolist() == [1] * length + [0] * (len(mask) - length)
            ids = batch["input_ids"][row, :length] - 1
            places, rows = (ids % 1000).tolist(), (ids // 1000 % 10).tolist()
            assert places == list(range(length))
            assert rows[0] == row
            assert rows[-1] != row or length == 1
            assert sum(a != b for a, b in pairwise(rows)) == (length > 1)
            other = rows[-1]
            assert length == int(source["attention_mask"][other].sum()) or length == 1
            kinds = batch["token_type_ids"][row, :length].tolist()
            assert kinds == [int(place >= 2) for place in places]


def test_the_second_copy_joins_other_pairs() -> None:
    batch = texts([8] * 5)
    first, second, third = spliced([batch], "encoder", 1)
    followers = [int(each["input_ids"][0, -1]) // 1000 for each in (first, second, third)]
    assert followers == [1, 2, 3]


def test_where_samples_are_cut_lies_evenly() -> None:
    batch = texts([101] * 200)
    made = spliced([batch], "encoder", tokens_in([batch]) // 100)[0]
    own = torch.arange(200)[:, None]
    cuts = (made["input_ids"] // 1000 == own).sum(dim=1)
    assert (int(cuts.min()), int(cuts.max())) == (1, 100)
    tenths = torch.histc(cuts.double(), bins=10, min=0, max=100)
    assert bool((tenths >= 17).all())
    assert bool((tenths <= 23).all())


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_as_many_are_added_as_tokens_are_wanted(kind: str) -> None:
    batch = texts([8] * 32)
    tokens = tokens_in([batch])
    for times in (1, 2, 3, 4):
        width = times * tokens // WANTED[kind]
        assert len(spliced([batch], kind, width)) == times - 1
    few = 1 + (1 + COPIES) * tokens // LEAST  # not even with all copies enough for carriers
    assert spliced([batch], kind, few) == []
    assert len(spliced([batch], kind, few - 1)) == COPIES


def test_what_cannot_be_joined_is_left_alone() -> None:
    good = texts([30, 40, 40])
    width = tokens_in([good]) // 64
    assert spliced([good], "encoder", width)
    left = {**good, "attention_mask": good["attention_mask"].flip(1)}
    places = {**good, "position_ids": good["input_ids"]}
    images = {"pixel_values": torch.ones(3, 3, 4, 4), "attention_mask": good["attention_mask"]}
    choices = {name: value[:, None] for name, value in good.items()}
    for other in (left, places, images, choices):
        assert spliced([other], "encoder", width) == []
        assert spliced([good, other], "encoder", width) == []
    assert spliced([good], "encoder-decoder", width) == []
    empty = {name: torch.zeros_like(value) for name, value in good.items()}
    assert spliced([empty], "encoder", width) == []


def test_what_is_given_stays_as_it_was() -> None:
    batch = texts([5, 3, 6])
    before = {name: value.clone() for name, value in batch.items()}
    first, second = (spliced([batch], "decoder", 1), spliced([batch], "decoder", 1))
    assert all(torch.equal(batch[name], value) for name, value in before.items())
    for one, other in zip(first, second, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
