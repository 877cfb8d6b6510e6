"""Batches of the caller's own for every kind of model: what a forward takes, shifted targets, refusals."""

from typing import Any

import pytest
import torch

import statprune
from statprune.calibration.given import COPIED_RULE, SHIFTED_RULE, check_ids, given, longest_ids, taken_by
from statprune.errors import DataError
from tests.tiny import tiny_batch, tiny_model

IDS = torch.tensor([[5, 6, 7, 2], [8, 9, 2, 1]])
LABELS = torch.tensor([[5, 6, 2], [8, 2, -100]])


def test_what_a_forward_takes_is_kept_and_the_rest_told() -> None:
    bert = taken_by(tiny_model("bert", head="BertForQuestionAnswering"))
    assert bert.names == {"input_ids", "attention_mask", "token_type_ids", "position_ids"}
    extra = {"token_type_ids": torch.zeros_like(IDS), "position_ids": torch.arange(4).repeat(2, 1)}
    ends = {"start_positions": torch.tensor([0, 1]), "end_positions": torch.tensor([0, 1])}
    taken = given([{"input_ids": IDS, **extra, **ends, "output_attentions": True}], bert)
    assert set(taken.batches[0]) == {"input_ids", "attention_mask", *extra}
    assert taken.notes == ("not used from the batches: end_positions, output_attentions, start_positions",)
    assert "token_type_ids" not in taken_by(tiny_model("distilbert")).names


@pytest.mark.parametrize("model_type", ["bart", "t5"])
def test_labels_are_shifted_as_the_model_does_it(model_type: str) -> None:
    model = tiny_model(model_type)
    taken = given([{"input_ids": IDS, "labels": LABELS}], taken_by(model))
    (batch,) = taken.batches
    own = model.prepare_decoder_input_ids_from_labels(labels=LABELS)
    assert torch.equal(batch["decoder_input_ids"], own)
    assert batch["decoder_attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert SHIFTED_RULE in taken.protocol["rule"]
    assert taken.notes == ()


def test_without_a_target_the_input_is_one_and_that_is_said() -> None:
    model = tiny_model("bart")
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    taken = given([{"input_ids": IDS, "attention_mask": mask}], taken_by(model))
    assert taken.batches[0]["decoder_input_ids"].tolist() == [[2, 5, 6, 7], [2, 8, 9, 2]]
    assert torch.equal(taken.batches[0]["decoder_attention_mask"], mask)
    assert taken.notes == (COPIED_RULE,)
    with torch.no_grad():
        own = model(input_ids=IDS, attention_mask=mask).logits
        ours = model(**taken.batches[0]).logits
    torch.testing.assert_close(ours[mask == 1], own[mask == 1])


def test_the_mask_of_sound_is_that_of_the_tokens_made_of_it() -> None:
    """A feature extractor's mask counts pieces of sound, of which several become one token."""
    model = tiny_model("whisper")
    batch = tiny_batch(model, rows=4) | {"attention_mask": torch.ones(4, 20, dtype=torch.int64)}
    result = statprune.compress(model, data=[batch], keep=0.6, multiple=1)
    assert (result.record["context"], result.record["data"]["tokens"]) == (10, 40)
    assert "not used from the batches: attention_mask" in result.record["notes"]


def test_ids_of_the_decoder_are_checked_too() -> None:
    taken = given([{"input_ids": IDS, "decoder_input_ids": IDS + 60}], taken_by(tiny_model("bart")))
    assert longest_ids(taken) == 4
    with pytest.raises(
        DataError, match="batch 1: decoder_input_ids: token id 69, but the model's vocabulary"
    ):
        check_ids(taken, 64)
    check_ids(taken, None)


PIXELS = torch.zeros(2, 3, 12, 12)
BAD: list[tuple[str, dict[str, Any], str]] = [
    ("vit", {"input_ids": IDS}, "keys input_ids; give a mapping with the tensor pixel_values$"),
    ("vit", {"pixel_values": PIXELS.int()}, r"\(2, 3, 12, 12\) torch.int32; give floating point"),
    ("vit", {"pixel_values": PIXELS[0, 0]}, r"pixel_values is \(12, 12\)"),
    ("vit", {"pixel_values": PIXELS[:0]}, r"pixel_values is \(0, 3, 12, 12\)"),
    ("vit", {"pixel_values": PIXELS / 0}, "holds NaN or infinity"),
    ("vit", {"pixel_values": PIXELS[:, :2]}, r"the model cannot read its first sample \(.*\(1, 2, 12, 12\)"),
    ("vit", {"pixel_values": PIXELS[..., :8]}, "cannot read its first sample .* own processor makes"),
    ("whisper", {"input_features": torch.zeros(2, 4, 20)}, "no decoder_input_ids, and no labels"),
    (
        "whisper",
        {"input_features": torch.zeros(2, 4, 18), "decoder_input_ids": IDS},
        r"cannot read its first sample .*\(1, 4, 18\)",
    ),
    ("bart", {"input_ids": IDS, "labels": LABELS[:1]}, r"labels are \(1, 3\); input_ids is \(2, 4\)"),
    ("bart", {"input_ids": IDS, "decoder_input_ids": IDS[:1]}, "give a tensor with as many rows"),
    ("bart", {"input_ids": IDS, "decoder_input_ids": IDS.float()}, "float32; give a tensor of integers"),
    ("bart", {"input_ids": IDS, "decoder_input_ids": IDS[:, 0]}, r"give integers of shape \(rows, length\)"),
    (
        "bart",
        {"input_ids": IDS, "decoder_input_ids": IDS, "decoder_attention_mask": IDS[:, :2]},
        r"decoder_attention_mask is \(2, 2\); decoder_input_ids is \(2, 4\)",
    ),
    (
        "bart",
        {"input_ids": IDS, "decoder_input_ids": IDS, "decoder_attention_mask": torch.zeros_like(IDS)},
        "a row whose decoder_attention_mask is all 0",
    ),
    ("bart", {"input_ids": IDS.repeat(1, 17)}, "hold rows of 68 tokens; this model reads 64"),
    ("bart", {"input_ids": IDS, "labels": LABELS.repeat(1, 30)}, "rows of 90 tokens; this model reads 64"),
    ("bert", {"input_ids": IDS, "token_type_ids": IDS + 1}, "cannot read its first sample"),
]  # fmt: skip


@pytest.mark.parametrize(("model_type", "batch", "message"), BAD)
def test_what_cannot_be_used_is_refused_before_a_pass(
    model_type: str, batch: dict[str, Any], message: str
) -> None:
    model = tiny_model(model_type)
    passed: list[int] = []
    blocks = model.base_model.encoder.layers if model_type in ("bart", "whisper") else None
    if blocks is not None:
        blocks[0].register_forward_hook(lambda *_: passed.append(1))
    with pytest.raises(DataError, match=message):
        statprune.compress(model, data=[batch], keep=0.6, method="stat")
    assert len(passed) <= 1


def test_a_decoder_without_a_start_token() -> None:
    model = tiny_model("bart")
    model.config.decoder_start_token_id = None
    with pytest.raises(DataError, match="no decoder_start_token_id"):
        given([{"input_ids": IDS}], taken_by(model))


def test_choices_become_rows() -> None:
    takes = taken_by(tiny_model("bert", head="BertForMultipleChoice"))
    ids = torch.arange(3, 27).view(2, 3, 4)
    taken = given([{"input_ids": ids, "attention_mask": torch.ones_like(ids)}], takes)
    assert taken.batches[0]["input_ids"].tolist() == ids.view(6, 4).tolist()
    assert taken.protocol["samples"] == 6
