"""Batches of the caller's own are taken as they are, or refused by number."""

import json

import pytest
import torch
from transformers import BatchEncoding

from statprune.calibration.given import check_ids, given
from statprune.errors import DataError


def rows_of(batches):
    """The rows without padding, in order."""
    return [
        ids[mask == 1].tolist()
        for batch in batches
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ]


def test_given_batches_are_used_as_they_are():
    ids = torch.tensor([[1, 2, 3], [4, 5, 0]], dtype=torch.int32)
    mask = torch.tensor([[True, True, True], [True, True, False]])
    taken = given(
        [{"input_ids": ids, "attention_mask": mask, "labels": ids}, BatchEncoding({"input_ids": ids[:1]})]
    )
    assert rows_of(taken.batches) == [[1, 2, 3], [4, 5], [1, 2, 3]]
    assert all(tensor.dtype == torch.int64 for batch in taken.batches for tensor in batch.values())
    assert (taken.tokens, taken.protocol["samples"], taken.protocol["seq_len"]) == (8, 3, 3)
    assert taken.notes == ("not used from the batches: labels",)
    assert rows_of(given([[7, 8], [9]]).batches) == [[7, 8], [9]]
    assert json.loads(json.dumps(taken.protocol)) == taken.protocol


def test_a_limit_takes_the_first_rows_and_reads_no_further():
    def endless():
        while True:
            yield {"input_ids": torch.tensor([[1, 2], [3, 4]])}

    assert rows_of(given(endless(), limit=3).batches) == [[1, 2], [3, 4], [1, 2]]


GOOD = {"input_ids": torch.tensor([[1, 2]])}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"input_ids": torch.tensor([1, 2])}, r"input_ids is \(2,\)"),
        ({"input_ids": torch.tensor([[1.0]])}, "torch.float32"),
        ({"input_ids": torch.zeros(0, 4, dtype=torch.long)}, r"\(0, 4\)"),
        ({"labels": torch.tensor([[1]])}, "keys labels"),
        (GOOD | {"attention_mask": torch.ones(1, 3)}, r"attention_mask is \(1, 3\) torch.float32"),
        (GOOD | {"attention_mask": torch.tensor([[1, 5]])}, "attention_mask holds 5"),
        (GOOD | {"attention_mask": torch.tensor([[0, 0]])}, "all 0"),
        (GOOD | {"token_type_ids": [[0, 0]]}, "token_type_ids is list"),
        ([], "not a list of token ids"),
        (["a"], "not a list of token ids"),
        ("text", "str"),
    ],
)
def test_a_wrong_batch_is_named_by_its_number(bad, message):
    with pytest.raises(DataError, match=rf"^batch 2: .*{message}"):
        given([GOOD, bad])


def test_no_batches():
    with pytest.raises(DataError, match="none"):
        given([])


def test_ids_outside_the_vocabulary():
    taken = given([[1, 2], [3, 512]])
    check_ids(taken, 513)
    with pytest.raises(DataError, match="batch 2: token id 512, but the model's vocabulary has 512 tokens"):
        check_ids(taken, 512)
    with pytest.raises(DataError, match="token id -1"):
        check_ids(given([[-1]]), 9)
