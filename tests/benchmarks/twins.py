"""A peer run on a tiny model, and what a twin of that model reads, seen by hooks on the whole of it."""

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from benchmarks.quality.peers import PEERS
from statprune.anatomy.lookup import Anatomy, anatomy_of
from statprune.anatomy.producers import module_at
from statprune.budget.allocate import Budget
from statprune.budget.cost import Cost
from tests.tiny import tiny_batch


def batches_of(model: PreTrainedModel) -> list[dict[str, Tensor]]:
    batches = [tiny_batch(model, rows=8, length=12, seed=seed) for seed in (1, 2)]
    batches[0]["attention_mask"][1:, 9:] = 0
    return batches


def budget_of(of: str, keep: float = 0.5, multiple: int = 4) -> Budget:
    return Budget(keep, Cost(of, 12), multiple)


def run_peer(name: str, model: PreTrainedModel, budget: Budget) -> tuple[Anatomy, dict[str, int]]:
    anatomy = anatomy_of(model)
    generator = torch.Generator().manual_seed(0)
    plan = PEERS[name](model, anatomy, batches_of(model), budget, generator)
    return anatomy, dict(plan.widths)


@torch.no_grad()
def reads_of(model: PreTrainedModel, paths: dict[str, str]) -> dict[str, np.ndarray]:
    """What the modules at `paths` (of the base model) read, (tokens, columns), padding removed."""
    found: dict[str, list[Tensor]] = {name: [] for name in paths}
    for batch in batches_of(model):
        real = batch["attention_mask"].bool()
        hooks = [
            module_at(model.base_model, path).register_forward_pre_hook(
                lambda _, inputs, name=name, real=real: found[name].append(
                    inputs[0].reshape(*real.shape, -1)[real]
                )
            )
            for name, path in paths.items()
        ]
        model(**batch)
        for hook in hooks:
            hook.remove()
    return {name: torch.cat(parts).double().numpy() for name, parts in found.items()}


def consumers(anatomy: Anatomy) -> dict[str, str]:
    return {s.name: f"{anatomy.runs[0].stack.blocks}.{s.block}.{s.consumer}" for s in anatomy.sites}


def behind(anatomy: Anatomy) -> dict[str, str]:
    """The norms that read the residual stream behind every site."""
    if anatomy.entry.kind == "encoder":
        norms = {"attention": "attention.output.LayerNorm", "feed_forward": "output.LayerNorm"}
        return {s.name: f"{anatomy.runs[0].stack.blocks}.{s.block}.{norms[s.kind]}" for s in anatomy.sites}
    after = [f"layers.{block}.input_layernorm" for block in range(1, len(anatomy.blocks))] + ["norm"]
    return {
        s.name: f"layers.{s.block}.post_attention_layernorm" if s.kind == "attention" else after[s.block]
        for s in anatomy.sites
    }
