"""A model whose blocks are lent -> shards of a folder, one block at a time."""

import json
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from statprune.anatomy.lookup import Anatomy
from statprune.checkpoint.weight_files import INDEX


def write_shards(model: PreTrainedModel, anatomy: Anatomy, folder: Path) -> None:
    """Write what is outside the blocks as the first shard, then each block as one, and the index.

    Names are those of the model's own state_dict.
    """
    names = {id(module): name for name, module in model.named_modules()}
    total = len(anatomy.blocks) + 1
    where: dict[str, str] = {}
    size = 0

    def write(number: int, tensors: dict[str, Tensor]) -> None:
        nonlocal size
        shard = f"model-{number:05d}-of-{total:05d}.safetensors"
        save_file(tensors, folder / shard, metadata={"format": "pt"})
        where.update(dict.fromkeys(tensors, shard))
        size += sum(value.numel() * value.element_size() for value in tensors.values())

    write(1, outside_blocks(model, anatomy))
    for index, block in anatomy.visited():
        tensors = block.state_dict(prefix=f"{names[id(block)]}.")
        write(index + 2, {name: value.detach().cpu().contiguous() for name, value in tensors.items()})
    content = {"metadata": {"total_size": size}, "weight_map": where}
    (folder / INDEX).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def outside_blocks(model: PreTrainedModel, anatomy: Anatomy) -> dict[str, Tensor]:
    """What the model's state_dict holds outside its blocks; of tied weights the first."""
    names = {id(module): name for name, module in model.named_modules()}
    blocks = tuple(f"{names[id(block)]}." for block in anatomy.blocks)
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, value in model.state_dict().items():
        if not name.startswith(blocks) and value.data_ptr() not in seen:
            found[name] = value.detach().cpu().contiguous()
            seen.add(value.data_ptr())
    return found
