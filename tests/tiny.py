"""Random tiny models of every model type that has an entry, and cuts of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedModel

from statprune.anatomy.lookup import ARCHITECTURES, anatomy_of, entry_for
from statprune.anatomy.sites import module_at
from statprune.surgery.cut import cut
from statprune.surgery.linear import weight_of

MODEL_TYPES = tuple(name for entry in ARCHITECTURES for name in entry.model_types)

_VOCABULARY = 64
_LLAMA: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
_BERT: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
_SIZES: dict[str, dict[str, Any]] = {
    "llama": _LLAMA,
    "mistral": {**_LLAMA, "sliding_window": None},
    "qwen2": _LLAMA,
    "qwen3": {**_LLAMA, "head_dim": 8},
    "opt": {
        "hidden_size": 32,
        "ffn_dim": 40,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
        "word_embed_proj_dim": 32,
    },
    "gpt2": {"n_embd": 32, "n_inner": 40, "n_layer": 3, "n_head": 4, "n_positions": 64},
    "bert": _BERT,
    "roberta": {**_BERT, "max_position_embeddings": 66},
    "distilbert": {"dim": 32, "hidden_dim": 40, "n_layers": 3, "n_heads": 4, "max_position_embeddings": 64},
}
_HEADS = {"opt": "OPTForCausalLM", "gpt2": "GPT2LMHeadModel"}
_PREFIXES = {
    "llama": "Llama",
    "mistral": "Mistral",
    "qwen2": "Qwen2",
    "qwen3": "Qwen3",
    "opt": "OPT",
    "gpt2": "GPT2",
    "bert": "Bert",
    "roberta": "Roberta",
    "distilbert": "DistilBert",
}


def tiny_model(model_type: str, *, head: str | None = None, seed: int = 0, **config: Any) -> PreTrainedModel:
    """A random model in fp32 and eval mode: 3 blocks, hidden 32, 4 heads of 8 columns, 40 neurons, 64 words.

    Args:
        model_type: one that has an entry.
        head: class name in transformers; by default a decoder's ForCausalLM, an encoder's ForMaskedLM.
        seed: of all weights. Biases and norm weights are random too: a zero bias would hide a lost one.
        config: config values besides, or instead of, the tiny ones.
    """
    prefix = _PREFIXES[model_type]
    entry = entry_for(model_type)
    task = "ForCausalLM" if entry is not None and entry.kind == "decoder" else "ForMaskedLM"
    name = head or _HEADS.get(model_type, prefix + task)
    # The special tokens of the defaults lie outside this vocabulary.
    tokens = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
    sizes = {"vocab_size": _VOCABULARY, **tokens, **_SIZES[model_type], **config}
    settings = getattr(transformers, f"{prefix}Config")(**sizes)
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        model: PreTrainedModel = getattr(transformers, name)(settings)
    _randomise(model, torch.Generator().manual_seed(seed + 1))
    return model.eval()


def tiny_batch(
    model: PreTrainedModel, *, rows: int = 2, length: int = 12, seed: int = 0
) -> dict[str, Tensor]:
    """Random tokens for `model`, without padding."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, model.config.vocab_size, (rows, length), generator=generator)
    if "MultipleChoice" in type(model).__name__:
        ids = ids[:, None, :].repeat(1, 2, 1)
    return {
        "input_ids": ids.to(model.device),
        "attention_mask": torch.ones_like(ids).to(model.device),
    }


def random_cut(model: PreTrainedModel, kept: Mapping[str, Sequence[int]]) -> PreTrainedModel:
    """Keep the units `kept` of the named sites in place; consumers keep their own columns, uncorrected."""
    anatomy = anatomy_of(model)
    unknown = set(kept) - {site.name for site in anatomy.sites}
    if unknown:
        raise KeyError(f"no such sites: {sorted(unknown)}")
    for site in anatomy.sites:
        if site.name not in kept:
            continue
        block = anatomy.blocks[site.block]
        units = torch.tensor(sorted(kept[site.name]), dtype=torch.int64)
        columns = site.columns_of(units)
        weight = weight_of(module_at(block, site.consumer))
        cut(anatomy.entry, block, site, units, weight[:, columns.to(weight.device)].clone())
    return model


def uniform_cut(model: PreTrainedModel, *, heads: bool = False) -> PreTrainedModel:
    """The same widths in every block, other units in each: 24 neurons and, on request, one unit less."""
    kept: dict[str, list[int]] = {}
    for site in anatomy_of(model).sites:
        if site.kind == "feed_forward":
            kept[site.name] = [(unit * 3 + site.block) % site.units for unit in range(24)]
        elif heads:
            kept[site.name] = [unit for unit in range(site.units) if unit != site.block % site.units]
    return random_cut(model, kept)


def uneven_cut(model: PreTrainedModel) -> PreTrainedModel:
    """Other widths in every block: block 0 loses units of both kinds, block 1 neurons, block 2 heads."""
    sites = {site.name: site for site in anatomy_of(model).sites}
    heads = range(sites["blocks.0.attention"].units)
    return random_cut(
        model,
        {
            "blocks.0.attention": heads[1:],
            "blocks.0.feed_forward": range(3, 20),
            "blocks.1.feed_forward": range(0, 40, 2),
            "blocks.2.attention": heads[:1],
        },
    )


@torch.no_grad()
def _randomise(model: nn.Module, generator: torch.Generator) -> None:
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            centre = 1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0
            parameter.copy_(centre + 0.3 * torch.randn(parameter.shape, generator=generator))
        else:
            # Larger than the default 0.02, so that attention is not uniform and blocks matter.
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    for module in model.modules():
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            module.weight[module.padding_idx] = 0.0
