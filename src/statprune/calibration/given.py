"""Batches that the caller made -> samples: what the model's forward takes, checked tensor by tensor."""

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from statprune.calibration.batches import MASKS
from statprune.calibration.samples import Batch, Samples
from statprune.errors import DataError

GIVEN_RULE = "all batches as given, in their order, masks respected"
SHIFTED_RULE = "decoder_input_ids are the labels, shifted right behind the model's own start token"
COPIED_RULE = "no decoder_input_ids and no labels: the decoder is given the input itself, shifted right"

IDS, DECODER_IDS, LABELS = "input_ids", "decoder_input_ids", "labels"
PADDED_LABEL = -100
"""What losses pass over."""

_NOT_DATA = (LABELS, "encoder_outputs", "past_key_values", "logits_to_keep", "return_loss", "kwargs", "self")
_NOT_DATA_ENDS = ("inputs_embeds", "hidden_states", "encoder_attention_mask", "cache_position")
_INTEGERS = ("_ids", "_mask", "bbox")


@dataclass(frozen=True)
class Takes:
    """What a model's forward takes.

    Attributes:
        main: its main input: input_ids, pixel_values, input_features.
        names: every input that samples can have.
        decodes: whether there is a decoder that reads input of its own.
        start: the token that the decoder begins with; None where its config has none.
        pad: the token that stands for padding.
        choices: whether a sample is several texts, (rows, choices, length), that the blocks see one by one.
    """

    main: str = IDS
    names: frozenset[str] = frozenset((IDS, MASKS[0], "token_type_ids", "position_ids"))
    decodes: bool = False
    start: int | None = None
    pad: int = 0
    choices: bool = False


TEXT = Takes()
"""A model of text without a decoder that reads another one's outputs."""


def taken_by(model: PreTrainedModel) -> Takes:
    """What `model` takes, with its head and, where blocks alone are run, without."""
    signatures = [inspect.signature(each.forward).parameters for each in (model, model.base_model)]
    names = set(signatures[0]) & set(signatures[1])
    data = {name for name in names if name not in _NOT_DATA and not name.endswith(_NOT_DATA_ENDS)}
    config = model.config
    pad = getattr(config, "pad_token_id", None)
    return Takes(
        main=model.main_input_name,
        names=frozenset(data),
        decodes=DECODER_IDS in data,
        start=getattr(config, "decoder_start_token_id", None),
        pad=0 if pad is None else int(pad),
        choices="MultipleChoice" in type(model).__name__,
    )


def given(batches: Iterable[Any], takes: Takes = TEXT, *, limit: int | None = None) -> Samples:
    """Batches that the caller supplies, all used, in order.

    Args:
        batches: Mappings with the model's main input, (rows, ...), and what else its forward takes, such as
            attention_mask where there is padding; or, of text, lists of token ids, one a sample. Where a
            decoder has none of its own, labels are shifted right; without labels the input is.
        takes: What the model takes.
        limit: Use the first `limit` rows only.

    Raises:
        DataError: A batch lacks the main input, has a wrong shape or type, or a row without a real token;
            with its number.
    """
    kept: list[Batch] = []
    left_out: set[str] = set()
    rules = {GIVEN_RULE: None}
    rows = 0
    for number, element in enumerate(batches, start=1):
        if limit is not None and rows >= limit:
            break
        batch, rule = _checked(_one_by_one(element, takes), f"batch {number}", takes)
        rules |= {rule: None} if rule is not None else {}
        if isinstance(element, Mapping):
            used = {LABELS} if rule == SHIFTED_RULE else set()
            left_out.update(set(map(str, element)) - set(batch) - used)
            left_out.update({MASKS[0]} & set(element) if takes.main != IDS else ())
        room = None if limit is None else limit - rows
        kept.append({name: tensor[:room] for name, tensor in batch.items()})
        rows += len(kept[-1][takes.main])
    if not kept:
        raise DataError(f"batches given: none; give at least one batch with {takes.main}")
    tokens = sum(int(batch[MASKS[0]].sum()) for batch in kept)
    protocol = {
        "rule": "; ".join(rules),
        "samples": rows,
        "asked": limit,
        "seq_len": max(batch[MASKS[0]].shape[1] for batch in kept),
        "tokens": tokens,
        "seed": None,
        "source": {"source": "memory", "kind": "batches"},
        "join": None,
    }
    notes = [COPIED_RULE] if COPIED_RULE in rules else []
    if left_out:
        notes.append(f"not used from the batches: {', '.join(sorted(left_out))}")
    return Samples(kept, protocol, tokens, tuple(notes))


def check_ids(samples: Samples, vocab_size: int | None) -> None:
    """Nothing, when every token id is one of the model's vocabulary; None where the model has none.

    Raises:
        DataError: An id is negative or not below `vocab_size`.
    """
    if vocab_size is None:
        return
    for number, batch in enumerate(samples.batches, start=1):
        for name in (IDS, DECODER_IDS):
            ends = (int(batch[name].min()), int(batch[name].max())) if name in batch else ()
            for token in ends:
                if not 0 <= token < vocab_size:
                    where = f"batch {number}: " + ("" if name == IDS else f"{name}: ")
                    message = f"{where}token id {token}, but the model's vocabulary has {vocab_size} tokens"
                    raise DataError(f"{message}; use the model's own tokenizer")


def longest_ids(samples: Samples) -> int:
    """Tokens of the longest row of ids, of either stack; 0 where there are none."""
    lengths = [
        batch[name].shape[1] for batch in samples.batches for name in (IDS, DECODER_IDS) if name in batch
    ]
    return max(lengths, default=0)


def shifted_right(labels: Tensor, takes: Takes, place: str) -> Tensor:
    """(rows, length): the start token, then `labels` without their last; what losses pass over is padding.

    Raises:
        DataError: the model names no start token.
    """
    if takes.start is None:
        raise DataError(
            f"{place}: the model's config has no decoder_start_token_id to shift the decoder's input with. "
            f"Set it, or give batches with {DECODER_IDS}."
        )
    begun = torch.full_like(labels[:, :1], takes.start)
    return torch.cat([begun, labels[:, :-1].masked_fill(labels[:, :-1] == PADDED_LABEL, takes.pad)], dim=1)


def _one_by_one(element: Any, takes: Takes) -> Any:
    """The texts of all choices, a row each, where a sample has several."""
    if not (takes.choices and isinstance(element, Mapping)):
        return element
    return {
        name: value.flatten(0, 1) if isinstance(value, Tensor) and value.dim() == 3 else value
        for name, value in element.items()
    }


def _checked(element: Any, place: str, takes: Takes) -> tuple[Batch, str | None]:
    """The batch, and the rule by which its decoder's input was made, if it was."""
    main = _main(element, place, takes)
    batch = {takes.main: main}
    extras = element if isinstance(element, Mapping) else {}
    if takes.main == IDS:
        batch[MASKS[0]] = torch.ones_like(main)
    else:
        # How many tokens the model makes of it is known when it has run: the mask is made then.
        batch[MASKS[0]] = torch.ones((len(main), 1), dtype=torch.int64)
    for name in sorted(takes.names & {key for key, value in extras.items() if value is not None}):
        if name != takes.main and (name != MASKS[0] or takes.main == IDS):
            batch[name] = _extra(extras[name], name, batch, place, takes)
    rule = _decoding(batch, extras, place, takes) if takes.decodes else None
    for mask, ids in zip(MASKS, (takes.main, DECODER_IDS), strict=True):
        if mask in batch and ids in batch:
            _check_mask(batch[mask], mask, place)
    return batch, rule


def _extra(value: Any, name: str, batch: Batch, place: str, takes: Takes) -> Tensor:
    main = batch[takes.main]
    if not isinstance(value, Tensor):
        raise DataError(f"{place}: {name} is {type(value).__name__}; give a tensor with {len(main)} rows")
    found = f"{place}: {name} is {tuple(value.shape)} {value.dtype}"
    if value.dim() == 0 or len(value) != len(main):
        raise DataError(f"{found}; {takes.main} is {tuple(main.shape)}: give a tensor with as many rows")
    like = main if takes.main == IDS and name in (MASKS[0], "token_type_ids", "position_ids") else None
    if name.endswith(_INTEGERS) and value.is_floating_point():
        shape = tuple(main.shape) if like is not None else tuple(value.shape)
        raise DataError(f"{found}; give a tensor of integers of shape {shape}")
    if like is not None and value.shape != like.shape:
        raise DataError(f"{found}; input_ids is {tuple(main.shape)}; give a tensor of integers of that shape")
    if name in (DECODER_IDS, MASKS[1]) and value.dim() != 2:
        raise DataError(f"{found}; give integers of shape (rows, length)")
    if value.numel() == 0:
        raise DataError(f"{found}; give at least one value a row")
    return value if value.is_floating_point() else value.long()


def _decoding(batch: Batch, extras: Mapping[Any, Any], place: str, takes: Takes) -> str | None:
    """Complete the decoder's input; say by which rule, where it was not given."""
    rule = None
    if DECODER_IDS not in batch:
        labels = extras.get(LABELS)
        if isinstance(labels, Tensor) and labels.dim() == 2 and not labels.is_floating_point():
            target, real, rule = labels.long(), labels != PADDED_LABEL, SHIFTED_RULE
            if len(target) != len(batch[takes.main]):
                raise DataError(
                    f"{place}: labels are {tuple(labels.shape)}; {takes.main} is "
                    f"{tuple(batch[takes.main].shape)}: give as many rows"
                )
        elif takes.main == IDS:
            target, real, rule = batch[IDS], batch[MASKS[0]].bool(), COPIED_RULE
        else:
            raise DataError(
                f"{place}: no {DECODER_IDS}, and no labels to make them from; give {DECODER_IDS} "
                f"(rows, length), the text that the decoder reads"
            )
        batch[DECODER_IDS] = shifted_right(target, takes, place)
        if MASKS[1] not in batch:
            # Where a label is none, what the decoder makes of that place is of no use.
            batch[MASKS[1]] = real.long()
    batch.setdefault(MASKS[1], torch.ones_like(batch[DECODER_IDS]))
    if batch[MASKS[1]].shape != batch[DECODER_IDS].shape:
        raise DataError(
            f"{place}: {MASKS[1]} is {tuple(batch[MASKS[1]].shape)}; {DECODER_IDS} is "
            f"{tuple(batch[DECODER_IDS].shape)}: give a mask of that shape"
        )
    return rule


def _check_mask(mask: Tensor, name: str, place: str) -> None:
    if bool(((mask != 0) & (mask != 1)).any()):
        raise DataError(f"{place}: {name} holds {int(mask.max())}; give 1 for real tokens, 0 for padding")
    if bool((mask.sum(dim=1) == 0).any()):
        raise DataError(f"{place}: a row whose {name} is all 0; drop rows without a real token")


def _main(element: Any, place: str, takes: Takes) -> Tensor:
    """The main input from a mapping, or (1, length) from a list of token ids."""
    if isinstance(element, list | tuple) and takes.main == IDS:
        if not element or not all(isinstance(t, int) and not isinstance(t, bool) for t in element):
            raise DataError(f"{place}: not a list of token ids; give integers, at least one")
        return torch.tensor([element], dtype=torch.int64)
    main = element.get(takes.main) if isinstance(element, Mapping) else None
    if not isinstance(main, Tensor):
        found = (
            f"keys {', '.join(map(str, element))}" if isinstance(element, Mapping) else type(element).__name__
        )
        besides = ", or a list of token ids" if takes.main == IDS else ""
        raise DataError(f"{place}: {found}; give a mapping with the tensor {takes.main}{besides}")
    found = f"{place}: {takes.main} is {tuple(main.shape)} {main.dtype}"
    if takes.main != IDS:
        dims = {"pixel_values": 4, "input_features": 3}.get(takes.main, max(2, main.dim()))
        if main.dim() != dims or main.numel() == 0 or not main.is_floating_point():
            shape = (
                "(rows, channels, height, width)" if takes.main == "pixel_values" else "(rows, bands, time)"
            )
            raise DataError(f"{found}; give floating point numbers of shape {shape}, none of them 0")
        if not bool(torch.isfinite(main).all()):
            raise DataError(f"{found} and holds NaN or infinity; drop or repair that sample")
        return main
    if main.dim() != 2 or main.numel() == 0 or main.is_floating_point() or main.dtype == torch.bool:
        raise DataError(f"{found}; give integers of shape (rows, length), none of them 0")
    return main.long()
