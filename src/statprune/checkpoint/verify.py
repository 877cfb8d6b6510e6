"""Open a saved folder again and compare it with the model in memory."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from statprune.calibration.batches import inputs_of
from statprune.checkpoint.classes import class_named
from statprune.checkpoint.load import open_weights
from statprune.checkpoint.widths import Encoding
from statprune.engine.divergence import judged
from statprune.errors import ModelError, VerificationError


@dataclass(frozen=True)
class Agreement:
    """How far the outputs of the saved model are from those in memory.

    Attributes:
        difference: the largest, over all outputs.
        reach: the largest value of the output in which it is.
    """

    difference: float
    reach: float


def verify(
    folder: Path, model: PreTrainedModel, encoding: Encoding, batch: Mapping[str, Tensor] | None
) -> Agreement | None:
    """How far the outputs of `folder` on `batch` are from those of `model`; None without a batch.

    Raise VerificationError unless `folder` holds `model`.

    Every parameter and stored buffer must be equal bit for bit, dtype included. On `batch`, every output
    must agree to 64 units in the last place of its dtype, and at most 5%, relative to the output's largest
    value: the parameters being equal, only the order of additions may differ.
    """
    try:
        fresh = open_weights(
            class_named(encoding.architecture),
            folder,
            dtype="auto",
            attn_implementation=model.config._attn_implementation,
        )
    except ModelError as error:
        raise VerificationError(f"the saved folder does not open: {error}") from error
    compare_weights(fresh.state_dict(), model.state_dict())
    return None if batch is None else _compare_outputs(fresh.to(model.device), model, batch)


def compare_weights(fresh: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Raise VerificationError unless both hold the same tensors, bit for bit."""
    differing = sorted(set(fresh) ^ set(own))
    if differing:
        where = "the saved folder" if differing[0] in own else "memory"
        raise VerificationError(f"{differing[0]} is missing in {where}. {ADVICE}")
    for name, ours in own.items():
        theirs = fresh[name]
        if theirs.dtype != ours.dtype or theirs.shape != ours.shape:
            raise VerificationError(
                f"{name} is {ours.dtype} of {tuple(ours.shape)} in memory, but {theirs.dtype} of "
                f"{tuple(theirs.shape)} after reloading. {ADVICE}"
            )
        if not torch.equal(_bits(theirs), _bits(ours)):
            # Compared in fp64, where no difference of two weights overflows.
            gaps = (theirs.to(ours.device).double() - ours.double()).abs().reshape(-1)
            raise VerificationError(
                f"{name} differs by up to {gaps.max():.3g} after reloading, at value {int(gaps.argmax())} "
                f"of {gaps.numel()}. {ADVICE}"
            )


@torch.no_grad()
def _compare_outputs(
    fresh: PreTrainedModel, model: PreTrainedModel, batch: Mapping[str, Tensor]
) -> Agreement:
    was_training = model.training
    model.eval()
    try:
        ours, theirs = _outputs(model, batch), _outputs(fresh, batch)
    finally:
        model.train(was_training)
    return compare_outputs(theirs, ours)


def compare_outputs(theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> Agreement:
    """How far outputs, by name, are apart.

    Raise VerificationError unless they agree but for the order of additions.
    """
    found = Agreement(0.0, 0.0)
    for name, expected in ours.items():
        tolerance = min(64 * torch.finfo(expected.dtype).eps, 0.05)
        gap = (theirs[name].double() - expected.double()).abs().max().item()
        largest = expected.double().abs().max().item()
        # Written so that a NaN fails.
        if not gap <= tolerance * largest:
            raise VerificationError(
                f"{name} differs by {gap:.3g} after reloading, where values reach {largest:.3g} and "
                f"{tolerance * largest:.3g} is allowed. {ADVICE}"
            )
        found = max(found, Agreement(gap, largest), key=lambda each: (each.difference, each.reach))
    return found


def _outputs(model: PreTrainedModel, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What the model returns, with its head wherever that takes plain samples in batches."""
    outputs: Mapping[str, Any] = judged(model)(**inputs_of(model, batch), return_dict=True)
    return {name: value for name, value in outputs.items() if isinstance(value, Tensor)}


def _bits(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)


ADVICE = "Nothing was kept; please report this with the model's config.json."
