"""Every sample belongs to one process, and what is chosen of the samples is what one process chooses."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from statprune.anatomy.ranks import ALONE
from statprune.calibration import share as shares
from statprune.calibration.share import exact, share
from statprune.engine.divergence import every_row, first_of, held_out


class Rank:
    """One of several processes, as far as sharing out goes."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size, self.local = rank, size, rank

    same = collected = None


def batches(sizes: list[tuple[int, int]]) -> list[dict[str, torch.Tensor]]:
    """Batches of (rows, length); every sample has a number of its own."""
    made, number = [], 0
    for rows, length in sizes:
        ids = torch.arange(number, number + rows)[:, None].expand(-1, length).clone()
        made.append({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
        number += rows
    return made


def numbers(parts: list[dict[str, torch.Tensor]]) -> list[int]:
    return [int(row[0]) for part in parts for row in part["input_ids"]]


SIZES = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 7)), min_size=1, max_size=6)


@given(SIZES, st.integers(1, 5), st.sampled_from([0, 2**15]))
def test_all_samples_are_taken_once_and_in_order(sizes: list[tuple[int, int]], ranks: int, few: int) -> None:
    made = batches(sizes)
    total = sum(rows for rows, _ in sizes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shares, "EXACT", few)
        parts = [share(made, Rank(rank, ranks)) for rank in range(ranks)]
    assert [n for part in parts for n in numbers(part.of(made))] == list(range(total))
    if total >= ranks:
        assert all(part.pieces for part in parts)
    if few == 0 and len(sizes) >= ranks:
        assert sum(len(part.pieces) for part in parts) == len(sizes)  # none is cut


@given(SIZES, st.integers(2, 4), st.integers(1, 60))
def test_rows_that_are_chosen_are_those_of_one_process(
    sizes: list[tuple[int, int]], ranks: int, tokens: int
) -> None:
    made = batches(sizes)
    for rows in (held_out(made), first_of(made, every_row(made), tokens)):
        expected = [
            int(batch["input_ids"][row, 0]) for batch, each in zip(made, rows, strict=True) for row in each
        ]
        found = []
        for rank in range(ranks):
            own = share(made, Rank(rank, ranks))
            pairs = zip(own.of(made), own.rows(rows), strict=True)
            found += [int(part["input_ids"][row, 0]) for part, each in pairs for row in each]
        assert found == expected


def test_one_process_takes_the_batches_as_they_are() -> None:
    made = batches([(3, 4), (2, 5)])
    assert all(mine is whole for mine, whole in zip(share(made, ALONE).of(made), made, strict=True))


def test_few_tokens_are_cut_where_batches_would_be_uneven() -> None:
    made = batches([(4, 8), (4, 8), (4, 8)])
    assert exact(made)
    assert [numbers(share(made, Rank(rank, 2)).of(made)) for rank in range(2)] == [
        [0, 1, 2, 3, 4, 5],
        [6, 7, 8, 9, 10, 11],
    ]
    assert len(share(made, Rank(0, 3)).of(made)) == 1
