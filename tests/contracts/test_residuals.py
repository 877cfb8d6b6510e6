"""Every entry's residual is what the consumer's output is added to: a fact that compensation relies on."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from statprune.anatomy.lookup import anatomy_of
from statprune.anatomy.parts import BLOCK
from statprune.anatomy.producers import module_at
from statprune.anatomy.sites import Site
from statprune.calibration.batches import inputs_of
from tests.tiny import MODEL_TYPES, tiny_batch, tiny_model

VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((model_type, {}) for model_type in MODEL_TYPES),
    ("opt", {"do_layer_norm_before": False}),
    ("gpt_neox", {"use_parallel_residual": False}),
    ("t5", {"feed_forward_proj": "relu"}),
]


def beside(block: nn.Module, site: Site, seen: dict[Any, Tensor]) -> Tensor | int:
    """What a shared expert adds to the experts' output, scaled for each token."""
    if not site.experts or not hasattr(block.mlp, "shared_expert_gate"):
        return 0
    x = block.post_attention_layernorm(seen["post_attention_layernorm"])
    return block.mlp.shared_expert_gate(x).sigmoid() * block.mlp.shared_expert(x)


@torch.no_grad()
@pytest.mark.parametrize(("model_type", "options"), VARIANTS)
def test_the_block_goes_on_with_residual_plus_output(model_type: str, options: dict[str, Any]) -> None:
    model = tiny_model(model_type, **options)
    anatomy = anatomy_of(model)
    number = anatomy.runs[-1].start + 1
    block = anatomy.blocks[number]
    seen: dict[Any, Tensor] = {}
    sums: list[Tensor] = []

    def reads(name: Any) -> Any:
        return lambda _, inputs: seen.__setitem__(name, inputs[0].reshape(-1, inputs[0].shape[-1]))

    hooks = [
        block.register_forward_pre_hook(
            lambda _, a, k: reads(BLOCK)(_, a or (k["hidden_states"],)), with_kwargs=True
        )
    ]
    for site in anatomy.sites_of_block(number):
        consumer = module_at(block, site.consumer)
        hooks.append(
            consumer.register_forward_hook(
                lambda _, __, out, name=site.name: seen.__setitem__(name, out.reshape(-1, out.shape[-1]))
            )
        )
        hooks += [
            module_at(block, path).register_forward_pre_hook(reads(path)) for path in site.residual if path
        ]
    for module in block.modules():
        if "Norm" in type(module).__name__:
            hooks.append(module.register_forward_pre_hook(lambda _, inputs: sums.append(inputs[0])))
    hooks.append(
        block.register_forward_hook(lambda _, __, out: sums.append(out[0] if isinstance(out, tuple) else out))
    )
    model(**inputs_of(model, tiny_batch(model)))
    for hook in hooks:
        hook.remove()
    perceptrons = [site for site in anatomy.sites_of_block(number) if site.kind == "feed_forward"]
    for site in anatomy.sites_of_block(number):
        at_once = site.kind == "attention" and any(BLOCK in each.residual for each in perceptrons)
        if at_once or site.part == "shared_expert":  # with the perceptron's output, or with the experts'
            continue
        # Where it is added to nothing that the entry names, a norm reads it as it is.
        whole = sum((seen[path] for path in site.residual), seen[site.name] + beside(block, site, seen))
        gone_on = [each.reshape(-1, each.shape[-1]) for each in sums if each.shape[-1] == whole.shape[-1]]
        assert any(torch.allclose(whole, each, atol=1e-6) for each in gone_on), site.name
