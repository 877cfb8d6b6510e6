"""Examples in batches of similar length, padded on the right, and what a model says to each."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from statprune.anatomy.lookup import context_of, entry_for
from statprune.calibration.halving import Pace, in_halves
from statprune.errors import DataError, NonFiniteError
from statprune.evaluation.devices import evaluating, place_of, require_fit, takes, text_config

Told = Callable[[int, int], None]
"""Called with the examples done, and all of them."""


class Example(NamedTuple):
    """What a model reads of one example: token ids, and their types where the tokenizer makes them."""

    ids: list[int]
    types: list[int] | None = None


def outputs(
    model: nn.Module,
    examples: Sequence[Example],
    read: Callable[[Any, list[int]], list[Tensor]],
    *,
    batch_tokens: int,
    padding: int,
    told: Told | None = None,
) -> list[Tensor]:
    """What the model says to every example, on the CPU, in the order of the examples.

    Args:
        model: On any device; its mode is put back afterwards.
        examples: At least one.
        read: Takes the model's output and the numbers of the batch's examples; gives a tensor for each.
        batch_tokens: Tokens in a batch with padding, at most, unless one example is longer.
        padding: The tokenizer's token for it; the model's own takes precedence.
        told: Called after every batch.

    Raises:
        NonFiniteError: An output is NaN or infinite.
        ShortOfMemoryError: Memory is short for one example alone.
    """
    device, _ = place_of(model)
    own = padding_of(model)
    found: list[Tensor] = [torch.empty(0)] * len(examples)
    done, pace = 0, Pace()

    def asked(group: list[int], rows: slice) -> list[Tensor]:
        numbers = group[rows]
        batch = padded([examples[number] for number in numbers], padding if own is None else own)
        given = {name: value.to(device) for name, value in batch.items() if takes(model, name)}
        return [answer.cpu() for answer in read(model(**given), numbers)]

    with evaluating(model):
        for numbers in batches([len(each.ids) for each in examples], batch_tokens):
            pieces = in_halves(len(numbers), partial(asked, numbers), "asking", pace)
            answers = [answer for _, piece in pieces for answer in piece]
            for number, answer in zip(numbers, answers, strict=True):
                found[number] = answer
                if not bool(torch.isfinite(found[number]).all()):
                    raise NonFiniteError(
                        f"example {number + 1}: the model's output is NaN or infinite; look for NaN or "
                        f"infinity in the weights, or evaluate in float32"
                    )
            done += len(numbers)
            if told is not None:
                told(done, len(examples))
    return found


def batches(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Numbers in batches of similar length, longest first, of at most `tokens` tokens or of one example."""
    made: list[list[int]] = []
    for number in sorted(range(len(lengths)), key=lambda number: -lengths[number]):
        if not made or (len(made[-1]) + 1) * lengths[made[-1][0]] > tokens:
            made.append([])
        made[-1].append(number)
    return made


def padded(examples: Sequence[Example], padding: int) -> dict[str, Tensor]:
    """(examples, longest): input_ids, attention_mask and, where all have them, token_type_ids."""
    longest = max(len(each.ids) for each in examples)
    rest = [longest - len(each.ids) for each in examples]
    made = {
        "input_ids": [each.ids + [padding] * more for each, more in zip(examples, rest, strict=True)],
        "attention_mask": [
            [1] * len(each.ids) + [0] * more for each, more in zip(examples, rest, strict=True)
        ],
    }
    types = [each.types for each in examples if each.types is not None]
    if len(types) == len(examples):
        made["token_type_ids"] = [each + [0] * more for each, more in zip(types, rest, strict=True)]
    return {name: torch.tensor(values) for name, values in made.items()}


def padding_of(model: nn.Module) -> int | None:
    """The model's own token for padding; None where it has none, which some configs write as -1."""
    own = text_config(model, "pad_token_id")
    return None if own is None or own < 0 else int(own)


def require_room(model: Any, examples: Sequence[Example]) -> None:
    """Nothing, where the model has positions and rows of embeddings for every example.

    Raises:
        DataError: It has not.
    """
    length, longest = max(len(each.ids) for each in examples), positions_of(model)
    if longest is not None and length > longest:
        raise DataError(
            f"an example of {length} tokens, but {type(model).__name__} reads at most {longest}; "
            f"prepare the task with seq_len {longest} or less"
        )
    require_fit(model, torch.tensor([max(max(each.ids) for each in examples)]), 0)


def positions_of(model: Any) -> int | None:
    """The longest input, in tokens, that the model's positions allow; None where they have no limit."""
    entry = entry_for(model.config.model_type)
    if entry is not None:
        return context_of(entry, model.config)
    longest = text_config(model, "max_position_embeddings")
    return None if longest is None else int(longest)
