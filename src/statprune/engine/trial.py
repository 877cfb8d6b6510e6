"""One sample through the whole model beforehand: does it take it, and how many tokens are made of it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from transformers import PreTrainedModel

from statprune.anatomy.lookup import Anatomy
from statprune.calibration.batches import MASKS, Batch, inputs_of
from statprune.calibration.samples import Samples
from statprune.calibration.stream import before_first_block
from statprune.engine.divergence import judged, taken
from statprune.errors import DataError, ShortOfMemoryError, short_of_memory

_REFUSALS = (MemoryError, RuntimeError, ValueError, TypeError, IndexError, AttributeError, KeyError)


@torch.no_grad()
def tried(model: PreTrainedModel, anatomy: Anatomy, samples: Samples) -> Samples:
    """The samples, when the model takes one of the first batch's.

    Of images and sound numbers become the model's dtype, and every batch gets its mask: a one for each token
    that the first stack makes of a sample, counted once a shape.

    Raises:
        DataError: the model cannot read a sample; with the number of its batch and the model's reason.
    """
    found = samples
    if model.main_input_name != "input_ids":
        batches = [_cast(batch, model) for batch in samples.batches]
        found = _masked(model, anatomy, replace(samples, batches=batches))
    one = _first(found.batches[0])
    _refusing(1, one, lambda: judged(model)(**inputs_of(model, one), return_dict=True))
    return found


def _masked(model: PreTrainedModel, anatomy: Anatomy, samples: Samples) -> Samples:
    main, made, batches = model.main_input_name, {}, []
    for number, batch in enumerate(samples.batches, start=1):
        shape = tuple(batch[main].shape[1:])
        if shape not in made:
            one = _first(batch)
            stream = _refusing(number, one, lambda one=one: before_first_block(model, anatomy, [one]))
            made[shape] = stream.hidden[0].shape[1]
        batches.append({**batch, MASKS[0]: torch.ones((len(batch[main]), made[shape]), dtype=torch.int64)})
    tokens = sum(batch[MASKS[0]].numel() for batch in batches)
    protocol = samples.protocol | {"seq_len": max(made.values()), "tokens": tokens}
    return replace(samples, batches=batches, protocol=protocol, tokens=tokens)


def _first(batch: Batch) -> Batch:
    return taken([batch], [torch.tensor([0])])[0]


def _cast(batch: Batch, model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {
        name: value.to(model.dtype) if value.is_floating_point() else value for name, value in batch.items()
    }


def _refusing(number: int, batch: Batch, run: Any) -> Any:
    try:
        return run()
    except _REFUSALS as error:
        if short_of_memory(error):
            raise ShortOfMemoryError(f"batch {number}: memory is short for its first sample.") from error
        shapes = ", ".join(f"{name} {tuple(value.shape)}" for name, value in batch.items())
        reason = " ".join(str(error).split())[:300].rstrip(".")
        raise DataError(
            f"batch {number}: the model cannot read its first sample ({shapes}): {reason}. "
            f"Give inputs as the model's own processor makes them."
        ) from error


def tokens_by_stack(samples: Sequence[Batch]) -> tuple[int, ...]:
    """Real tokens of each stack, in all batches."""
    return tuple(sum(int(batch[mask].sum()) for batch in samples) for mask in MASKS if mask in samples[0])


def least_read(anatomy: Anatomy, samples: Sequence[Batch]) -> float:
    """Real tokens of the stack with the fewest, or what each expert gets if all are picked alike."""
    return min(tokens_by_stack(samples)) / max(site.sparsity for site in anatomy.sites)
