"""Texts for encoders with a decoder: sources, targets, and which of them the protocol says were used."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import statprune
from statprune.calibration.given import taken_by
from statprune.calibration.pairs import ECHO_RULE, PAIRS_RULE, pairs
from statprune.calibration.records import from_memory
from statprune.calibration.samples import Samples
from statprune.errors import DataError
from tests.saved import letter_tokenizer, sentences
from tests.tiny import tiny_model

LINES = sentences(24)
PAIRS = [(line, line[:: -1 if number % 2 else 2].strip()) for number, line in enumerate(LINES)]
ENDING = letter_tokenizer("encoder")
BART = tiny_model("bart")


def drawn(data: list[Any], *, writes: bool = True, **options: Any) -> Samples:
    sizes = {"samples": 10, "seq_len": 32, "generator": torch.Generator().manual_seed(3), **options}
    return pairs(from_memory(data), ENDING, taken_by(BART), writes=writes, **sizes)


def letters(ids: torch.Tensor, mask: torch.Tensor) -> str:
    names = {number: token for token, number in ENDING.get_vocab().items()}
    return "".join(names[int(token)] for token in ids[mask.bool()])


def test_pairs_are_sources_and_shifted_targets() -> None:
    taken = drawn(PAIRS, seq_len=60)
    found = {
        (letters(ids, mask), letters(decoder, real))
        for batch in taken.batches
        for ids, mask, decoder, real in zip(*batch.values(), strict=True)
    }
    # The start token is </s>; the last token of each target is only predicted.
    whole = {(f"<s>{a}</s>", f"</s><s>{b}") for a, b in PAIRS}
    assert len(found) == 10
    assert found <= whole
    assert taken.protocol["rule"] == PAIRS_RULE
    assert taken.protocol["decoder_tokens"] == sum(
        int(b["decoder_attention_mask"].sum()) for b in taken.batches
    )
    assert json.loads(json.dumps(taken.protocol)) == taken.protocol


def test_the_shift_is_the_models_own() -> None:
    batch = drawn(PAIRS, samples=2).batches[0]
    rows = [ENDING(second, truncation=True, max_length=32).input_ids for _, second in PAIRS]
    for ids, real in zip(batch["decoder_input_ids"], batch["decoder_attention_mask"], strict=True):
        labels = next(row for row in rows if row[:-1] == ids[1 : int(real.sum())].tolist())
        own = BART.prepare_decoder_input_ids_from_labels(labels=torch.tensor([labels]))
        assert torch.equal(ids[real.bool()], own[0])


def test_a_plain_text_is_both() -> None:
    taken = drawn(LINES)
    for batch in taken.batches:
        shifted = torch.cat([torch.full((len(batch["input_ids"]), 1), 2), batch["input_ids"][:, :-1]], 1)
        assert torch.equal(batch["decoder_input_ids"], shifted)
        assert torch.equal(batch["decoder_attention_mask"], batch["attention_mask"])
    assert taken.protocol["rule"] == ECHO_RULE
    assert any("both source and target" in note for note in taken.notes)


def test_a_classifier_of_pairs_reads_them_as_one() -> None:
    taken = drawn([("abc", "de")], writes=False)
    batch = taken.batches[0]
    assert letters(batch["input_ids"][0], batch["attention_mask"][0]) == "<s>abc</s>de</s>"
    assert letters(batch["decoder_input_ids"][0], torch.ones(8)) == "</s><s>abc</s>de"


def test_batches_hold_what_fits_and_samples_are_cut() -> None:
    taken = drawn(PAIRS, batch_tokens=80, samples=24, seq_len=20)
    sizes = [b["input_ids"].numel() + b["decoder_input_ids"].numel() for b in taken.batches]
    assert len(sizes) > 5
    assert max(sizes) <= 80
    assert max(b["decoder_input_ids"].shape[1] for b in taken.batches) == 20
    assert any("longer than 20 tokens" in note for note in taken.notes)


def test_what_pairs_must_not_be() -> None:
    with pytest.raises(DataError, match=r"a pair whose target is empty \(the other is 'abc'\)"):
        drawn([("abc", " ")])
    no_start = tiny_model("bart")
    no_start.config.decoder_start_token_id = None
    generator = torch.Generator()
    with pytest.raises(DataError, match="no decoder_start_token_id"):
        pairs(
            from_memory(PAIRS),
            ENDING,
            taken_by(no_start),
            writes=True,
            samples=2,
            seq_len=9,
            generator=generator,
        )


@pytest.mark.parametrize("model_type", ["bart", "t5"])
def test_columns_of_a_file_calibrate(model_type: str, tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps({"document": a, "summary": b, "id": "x"}) + "\n" for a, b in PAIRS))
    model = tiny_model(model_type)
    result = statprune.compress(
        model,
        tokenizer=ENDING,
        data=str(file),
        text_column=("document", "summary"),
        keep=0.7,
        out=tmp_path / "out",
        seq_len=32,
    )
    assert result.record["data"]["rule"] == PAIRS_RULE
    assert result.record["data"]["source"]["text_column"] == ["document", "summary"]


def test_a_classifier_with_two_stacks_takes_texts() -> None:
    model = tiny_model("bart", head="BartForSequenceClassification")
    result = statprune.compress(model, tokenizer=ENDING, data=LINES, keep=0.7, seq_len=32)
    assert result.record["data"]["rule"] == ECHO_RULE


def test_a_decoder_that_classifies_reads_texts_one_by_one() -> None:
    model = tiny_model("llama", head="LlamaForSequenceClassification")
    result = statprune.compress(model, tokenizer=letter_tokenizer(), data=LINES, keep=0.7)
    assert result.record["data"]["rule"].startswith("one record a sample")
    assert result.record["data"]["samples"] == 24
