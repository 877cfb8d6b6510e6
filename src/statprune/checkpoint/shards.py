"""A model whose blocks are lent -> shards of a folder, one block at a time."""

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from statprune.anatomy.lookup import Anatomy
from statprune.checkpoint.offload import names_of_blocks
from statprune.checkpoint.weight_files import INDEX


class Shards:
    """Writes the shards of a folder one after the other, and their index at the end."""

    def __init__(self, folder: Path, total: int) -> None:
        self._folder, self._total = folder, total
        self._where: dict[str, str] = {}
        self._size, self._written = 0, 0

    def write(self, tensors: Mapping[str, Tensor]) -> None:
        """The next shard: tensors by their whole names, contiguous, on the CPU."""
        self._written += 1
        shard = f"model-{self._written:05d}-of-{self._total:05d}.safetensors"
        save_file(dict(tensors), self._folder / shard, metadata={"format": "pt"})
        self._where |= dict.fromkeys(tensors, shard)
        self._size += sum(value.numel() * value.element_size() for value in tensors.values())

    def write_index(self) -> None:
        """Say which tensor is in which shard."""
        content = {"metadata": {"total_size": self._size}, "weight_map": self._where}
        (self._folder / INDEX).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def write_shards(model: PreTrainedModel, anatomy: Anatomy, folder: Path) -> None:
    """Write what is outside the blocks as the first shard, then each block as one, and the index.

    Names are those of the model's own state_dict.
    """
    shards = Shards(folder, len(anatomy.blocks) + 1)
    shards.write(outside_blocks(model, anatomy))
    for (_, block), name in zip(anatomy.visited(), names_of_blocks(model, anatomy), strict=True):
        tensors = block.state_dict(prefix=f"{name}.")
        shards.write({name: value.detach().cpu().contiguous() for name, value in tensors.items()})
    shards.write_index()


def outside_blocks(model: PreTrainedModel, anatomy: Anatomy) -> dict[str, Tensor]:
    """What the model's state_dict holds outside its blocks; of tied weights the first."""
    blocks = tuple(f"{name}." for name in names_of_blocks(model, anatomy))
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, value in model.state_dict().items():
        if not name.startswith(blocks) and value.data_ptr() not in seen:
            found[name] = value.detach().cpu().contiguous()
            seen.add(value.data_ptr())
    return found
