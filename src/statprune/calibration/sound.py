"""Sound with its text, in memory -> batches for an encoder of sound and its decoder."""

from collections.abc import Iterable, Mapping
from typing import Any

import datasets
import numpy as np
import torch

from statprune.calibration.batches import MASKS
from statprune.calibration.given import DECODER_IDS, IDS, Takes, shifted_right
from statprune.calibration.samples import Batch, Samples, require_some
from statprune.calibration.tokens import encode, pad
from statprune.errors import DataError

SOUND_RULE = (
    "one recording a sample, through the model's own feature extractor; the decoder is given its text, with "
    "the tokenizer's own special tokens, truncated, shifted right behind the model's own start token; drawn "
    "at random without replacement, in drawn order"
)
AT_ONCE = 8
"""Recordings in a batch."""


def sound(
    data: Any,
    processor: Any,
    tokenizer: Any,
    takes: Takes,
    *,
    samples: int,
    seq_len: int,
    generator: torch.Generator,
) -> Samples:
    """Random recordings as batches of input_features; their attention_mask is made when the model has run.

    Args:
        data: A list of mappings, or a `datasets.Dataset`, with `audio` (an array (time,), or a mapping with
            `array` and `sampling_rate`) and, where there is a decoder, `text`.
        processor: The model's own, or its feature extractor.
        tokenizer: Makes what the decoder is given.
        takes: What the model takes.
        samples: Recordings asked for.
        seq_len: Tokens of a text, at most.
        generator: Draws them.

    Raises:
        DataError: The data is none of these, or the processor or the tokenizer is missing.
    """
    require_some(samples, 1)
    extractor = getattr(processor, "feature_extractor", processor)
    if not callable(extractor) or not hasattr(extractor, "sampling_rate"):
        raise DataError(
            f"sound, and no feature extractor: give tokenizer=AutoProcessor.from_pretrained(...), or "
            f"batches with {takes.main}."
        )
    rows = _rows(data, takes)
    drawn = torch.randperm(len(rows), generator=generator, device=generator.device)[:samples].tolist()
    batches = []
    for start in range(0, len(drawn), AT_ONCE):
        group = [(number, rows[number]) for number in drawn[start : start + AT_ONCE]]
        batches.append(_batch(group, extractor, tokenizer, takes, seq_len))
    protocol = {
        "rule": SOUND_RULE,
        "samples": len(drawn),
        "asked": samples,
        "seq_len": 1,
        "tokens": len(drawn),
        "seed": generator.initial_seed(),
        "source": {"source": "memory", "kind": "recordings", "records": len(rows)},
        "join": None,
        "available": len(rows),
    }
    few = f"{samples} samples asked, {len(rows)} recordings available; all are used"
    return Samples(batches, protocol, len(drawn), (few,) if len(drawn) < samples else ())


def _rows(data: Any, takes: Takes) -> Any:
    needed = ("audio", "text") if takes.decodes else ("audio",)
    if isinstance(data, str | Mapping) or not isinstance(data, Iterable):
        raise DataError(
            f"{data if isinstance(data, str) else type(data).__name__}: sound is not read from files. Give "
            f"a list of mappings with {' and '.join(needed)}, or batches with {takes.main}."
        )
    rows = data if isinstance(data, datasets.Dataset) else list(data)
    first = rows[0] if len(rows) else None
    if not isinstance(first, Mapping) or any(name not in first for name in needed):
        found = ", ".join(map(str, first)) if isinstance(first, Mapping) else type(first).__name__
        raise DataError(f"sound in memory: {found} found; give mappings with {' and '.join(needed)}")
    return rows


def _batch(
    group: list[tuple[int, Mapping[str, Any]]], extractor: Any, tokenizer: Any, takes: Takes, seq_len: int
) -> Batch:
    arrays = [_array(row["audio"], extractor, f"recording {number + 1}") for number, row in group]
    made = extractor(arrays, sampling_rate=extractor.sampling_rate, return_tensors="pt")
    if takes.main not in made:
        raise DataError(f"the feature extractor makes {', '.join(made)}; this model reads {takes.main}.")
    batch = {takes.main: made[takes.main], MASKS[0]: torch.ones((len(group), 1), dtype=torch.int64)}
    if takes.decodes:
        texts = [_text(row["text"], f"recording {number + 1}") for number, row in group]
        target = pad([encode(text, tokenizer, seq_len) for text in texts], tokenizer)
        batch[DECODER_IDS] = shifted_right(target[IDS], takes, "sound")
        batch[MASKS[1]] = target[MASKS[0]]
    return batch


def _text(text: Any, place: str) -> str:
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{place}: text is {text!r}; give what is said in it")
    return text


def _array(audio: Any, extractor: Any, place: str) -> Any:
    rate = extractor.sampling_rate
    if not isinstance(audio, np.ndarray | torch.Tensor | list):
        try:
            audio, rate = audio["array"], audio["sampling_rate"]
        except (TypeError, KeyError) as error:
            raise DataError(
                f"{place}: audio is {type(audio).__name__}; give an array, or a mapping with array and "
                f"sampling_rate"
            ) from error
    array = np.asarray(audio, dtype=np.float32)
    if array.ndim != 1 or array.size == 0 or not np.isfinite(array).all():
        raise DataError(f"{place}: an array of {array.shape}; give finite numbers of shape (time,), not none")
    if int(rate) != extractor.sampling_rate:
        raise DataError(
            f"{place}: {rate} values a second; this model reads {extractor.sampling_rate}. Resample "
            f"it, as with Dataset.cast_column('audio', Audio(sampling_rate={extractor.sampling_rate}))."
        )
    return array
