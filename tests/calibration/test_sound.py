"""Recordings and what is said in them, in memory."""

from typing import Any

import datasets
import numpy as np
import pytest
import torch
from transformers import WhisperFeatureExtractor

import statprune
from statprune.calibration.given import taken_by
from statprune.calibration.samples import Samples
from statprune.calibration.sound import sound
from statprune.errors import DataError
from tests.saved import letter_tokenizer, sentences
from tests.tiny import tiny_model

EXTRACTOR = WhisperFeatureExtractor(
    feature_size=4, chunk_length=1, hop_length=80, n_fft=400, sampling_rate=1600
)
LINES = sentences(6)
ARRAYS = [
    np.random.default_rng(seed).standard_normal(900 + 50 * seed).astype(np.float32) for seed in range(6)
]
ROWS = [{"audio": array, "text": line} for array, line in zip(ARRAYS, LINES, strict=True)]
ENDING = letter_tokenizer("encoder")
WHISPER = tiny_model("whisper")


def drawn(data: Any, extractor: Any = EXTRACTOR) -> Samples:
    generator = torch.Generator().manual_seed(0)
    takes = taken_by(WHISPER)
    return sound(data, extractor, ENDING, takes, samples=9, seq_len=40, generator=generator)


def test_features_are_the_extractors_and_texts_are_shifted() -> None:
    taken = drawn(ROWS)
    (batch,) = taken.batches
    assert batch["input_features"].shape == (6, 4, 20)
    for array, line in zip(ARRAYS, LINES, strict=True):
        alone = EXTRACTOR(array, sampling_rate=1600, return_tensors="pt").input_features[0]
        (row,) = (
            n for n, each in enumerate(batch["input_features"]) if torch.allclose(each, alone, atol=1e-5)
        )
        length = int(batch["decoder_attention_mask"][row].sum())
        ids = ENDING(line, truncation=True, max_length=40).input_ids
        assert batch["decoder_input_ids"][row, :length].tolist() == [2, *ids[:-1]]


def test_mappings_and_data_sets() -> None:
    nested = [{**row, "audio": {"array": row["audio"], "sampling_rate": 1600}} for row in ROWS]
    plain = {"audio": [array.tolist() for array in ARRAYS], "text": LINES}
    wanted = drawn(ROWS).batches[0]
    for data in (nested, datasets.Dataset.from_dict(plain)):
        found = drawn(data).batches[0]
        for name, value in wanted.items():
            torch.testing.assert_close(found[name], value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            "folder/of/sound",
            "folder/of/sound: sound is not read from files. Give a list of mappings with audio",
        ),
        (ARRAYS, "ndarray found; give mappings with audio and text"),
        ([{"audio": ARRAYS[0]}], "audio found; give mappings with audio and text"),
        ([{"audio": ARRAYS[0], "text": " "}], "recording 1: text is ' '"),
        ([{"audio": ARRAYS[0][:, None], "text": "a"}], r"recording 1: an array of \(900, 1\)"),
        ([{"audio": ARRAYS[0] + np.inf, "text": "a"}], "give finite numbers"),
        ([{"audio": 3, "text": "a"}], "audio is int"),
        (
            [{"audio": {"array": ARRAYS[0], "sampling_rate": 44100}, "text": "a"}],
            "44100 values a second; this model reads 1600. Resample it",
        ),
    ],
)
def test_what_is_no_recording(data: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        drawn(data)


def test_whole_run() -> None:
    with pytest.raises(DataError, match="no feature extractor"):
        drawn(ROWS, None)
    model = tiny_model("whisper")
    # One object that holds both, as AutoProcessor gives it.
    both = type("Processor", (), {"feature_extractor": EXTRACTOR, "tokenizer": ENDING})()
    result = statprune.compress(model, tokenizer=both, data=ROWS, keep=0.7, multiple=1)
    assert (result.record["context"], result.record["data"]["tokens"]) == (10, 60)
    assert result.trace.divergence < 1
