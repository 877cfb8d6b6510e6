"""Samples joined of two each: of which tokens, in which places, and of what they are not made."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from statprune.calibration.splice import can_be_spliced, spliced

Texts = dict[str, Tensor]


def texts(lengths: list[int], first: int = 0) -> Texts:
    """Rows of these lengths, padded on the right; a token's number tells row, counted on, and place."""
    places = torch.arange(max(lengths))
    mask = (places < torch.tensor(lengths)[:, None]).long()
    ids = 1 + 1000 * (first + torch.arange(len(lengths)))[:, None] + places
    return {"input_ids": ids * mask, "attention_mask": mask, "token_type_ids": (places >= 2).long() * mask}


def in_batches(lengths: list[int], sizes: list[int]) -> list[Texts]:
    """The same rows in batches of these sizes, over and over."""
    made, done = [], 0
    while done < len(lengths):
        size = sizes[len(made) % len(sizes)]
        made.append(texts(lengths[done : done + size], done))
        done += size
    return made


def every(batches: list[Texts]) -> list[Tensor]:
    return [torch.arange(len(batch["input_ids"])) for batch in batches]


def rows_of(batches: list[Texts]) -> list[list[int]]:
    """The real tokens of each row; padding is behind them."""
    found = []
    for batch in batches:
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
            length = int(mask.sum())
            assert mask.tolist() == [1] * length + [0] * (len(mask) - length)
            found.append(ids[:length].tolist())
    return found


LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=12)
SIZES = st.lists(st.integers(1, 5), min_size=1, max_size=3)


@given(LENGTHS, SIZES, st.integers(0, 4))
def test_a_sample_begins_as_one_and_goes_on_as_another(
    lengths: list[int], sizes: list[int], copies: int
) -> None:
    batches, count = in_batches(lengths, sizes), len(lengths)
    made = rows_of(spliced(batches, every(batches), copies))
    assert len(made) == min(copies, count - 1) * count
    pairs = set()
    for number, row in enumerate(made):
        owners = [(each - 1) // 1000 for each in row]
        first, last = number % count, owners[-1]
        assert [(each - 1) % 1000 for each in row] == list(range(len(row)))
        assert owners[0] == first
        if min(lengths) > 1:
            assert last != first
            assert sum(a != b for a, b in pairwise(owners)) == 1
            assert len(row) == lengths[last]
            pairs.add((first, last))
    assert len(pairs) == (len(made) if min(lengths) > 1 else 0)  # none twice


@given(LENGTHS, SIZES, st.integers(0, 4))
def test_how_samples_are_cut_into_batches_makes_no_difference(
    lengths: list[int], sizes: list[int], copies: int
) -> None:
    one, many = in_batches(lengths, [len(lengths)]), in_batches(lengths, sizes)
    assert rows_of(spliced(one, every(one), copies)) == rows_of(spliced(many, every(many), copies))


def test_all_inputs_of_a_token_go_with_it() -> None:
    batches = in_batches([7, 5, 9, 6, 8], [2])
    for batch in spliced(batches, every(batches), 3):
        places = (batch["input_ids"] - 1) % 1000
        wanted = (places >= 2).long() * batch["attention_mask"]
        assert torch.equal(batch["token_type_ids"], wanted)


def test_rows_that_are_left_out_are_in_none() -> None:
    batches = in_batches([8] * 12, [5])
    rows = [numbers[numbers % 4 != 3] for numbers in every(batches)]
    apart = {number for number in range(12) if number % 5 % 4 == 3}
    owners = {(each - 1) // 1000 for row in rows_of(spliced(batches, rows, 2)) for each in row}
    assert owners == set(range(12)) - apart


def test_neighbours_are_not_joined() -> None:
    """Windows of one text, or answers to one question, have tokens in common."""
    batches = in_batches([8] * 40, [40])
    made = rows_of(spliced(batches, every(batches), 3))
    apart = {((row[-1] - 1) // 1000 - number) % 40 for number, row in enumerate(made)}
    assert apart == {10, 20, 30}


def test_where_samples_are_cut_lies_evenly() -> None:
    batch = texts([101] * 200)
    made = spliced([batch], every([batch]), 1)[0]
    cuts = ((made["input_ids"] - 1) // 1000 == torch.arange(200)[:, None]).sum(dim=1)
    assert (int(cuts.min()), int(cuts.max())) == (1, 100)
    tenths = torch.histc(cuts.double(), bins=10, min=0, max=100)
    assert bool((tenths >= 17).all())
    assert bool((tenths <= 23).all())


@pytest.mark.parametrize("what", ["left", "places", "images", "choices", "another input"])
def test_what_cannot_be_joined(what: str) -> None:
    good = texts([30, 40, 40])
    other = {
        "left": {**good, "attention_mask": good["attention_mask"].flip(1)},
        "places": {**good, "position_ids": good["input_ids"]},
        "images": {"pixel_values": torch.ones(3, 3, 4, 4), "attention_mask": good["attention_mask"]},
        "choices": {name: value[:, None] for name, value in good.items()},
        "another input": {name: good[name] for name in ("input_ids", "attention_mask")},
    }[what]
    assert can_be_spliced([good, good])
    assert not can_be_spliced([good, other])
    assert can_be_spliced([other]) == (what == "another input")


def test_what_is_given_stays_as_it_was() -> None:
    batch = texts([5, 3, 6])
    before = {name: value.clone() for name, value in batch.items()}
    first, second = (spliced([batch], every([batch]), 2) for _ in range(2))
    assert all(torch.equal(batch[name], value) for name, value in before.items())
    for one, other in zip(first, second, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
