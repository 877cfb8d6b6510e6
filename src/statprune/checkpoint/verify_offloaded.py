"""Open a saved folder again, block by block, and compare it with the model whose blocks are lent."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from statprune.anatomy.lookup import Anatomy, anatomy_of
from statprune.calibration.stream import advance, before_first_block, behind_last_block
from statprune.checkpoint.load import load
from statprune.checkpoint.offload import Lent
from statprune.checkpoint.shards import outside_blocks
from statprune.checkpoint.verify import Agreement, compare_outputs, compare_weights
from statprune.engine.divergence import judged
from statprune.errors import ModelError, VerificationError


def verify_offloaded(
    folder: Path, model: PreTrainedModel, anatomy: Anatomy, batch: Mapping[str, Tensor] | None
) -> Agreement | None:
    """As `verify`, with one block of each in memory at a time.

    transformers opens the folder, as its users will, but for reading the blocks' numbers.
    """
    with TemporaryDirectory(dir=folder.parent) as scratch:
        try:
            fresh = load(folder, device=str(model.device), scratch=Path(scratch))
        except ModelError as error:
            raise VerificationError(f"the saved folder does not open: {error}") from error
        if fresh.lender is None:
            raise VerificationError("the saved folder was not opened block by block.")
        opened = replace(anatomy_of(fresh.model), shelf=Lent(fresh.lender))
        compare_weights(outside_blocks(fresh.model, opened), outside_blocks(model, anatomy))
        for (_, theirs), (_, ours) in zip(opened.visited(), anatomy.visited(), strict=True):
            compare_weights(theirs.state_dict(), ours.state_dict())
        if batch is None:
            return None
        return compare_outputs(_outputs(fresh.model, opened, batch), _outputs(model, anatomy, batch))


@torch.no_grad()
def _outputs(model: PreTrainedModel, anatomy: Anatomy, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    stream = before_first_block(model, anatomy, [batch])
    for index, block in anatomy.visited():
        advance(stream, block, index)
    found: Mapping[str, Any] = behind_last_block(judged(model), anatomy, stream.hidden[0], batch)
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}
