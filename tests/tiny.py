"""Random tiny models of every model type that has an entry, and cuts of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedModel

from statprune.anatomy.head_values import narrow_head_values
from statprune.anatomy.lookup import ARCHITECTURES, anatomy_of, entry_for
from statprune.anatomy.producers import module_at
from statprune.anatomy.sites import Site
from statprune.surgery.cut import cut, own_columns
from statprune.surgery.linear import keep_outputs, set_weight, weight_of

REFUSED = ("albert",)
"""Types whose entry says why nothing of them can be pruned."""

MODEL_TYPES = tuple(name for entry in ARCHITECTURES for name in entry.model_types if name not in REFUSED)

_VOCABULARY = 64
_LLAMA: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
_MIXTURE: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 40}
_BERT: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
_BART: dict[str, Any] = {
    "d_model": 32,
    "encoder_layers": 3,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 40,
    "decoder_ffn_dim": 40,
}
_SIZES: dict[str, dict[str, Any]] = {
    "llama": _LLAMA,
    "mistral": {**_LLAMA, "sliding_window": None},
    "qwen2": _LLAMA,
    "qwen3": {**_LLAMA, "head_dim": 8},
    "mixtral": {**_LLAMA, "num_local_experts": 4, "sliding_window": None},
    "qwen2_moe": {**_LLAMA, **_MIXTURE, "shared_expert_intermediate_size": 40},
    "qwen3_moe": {**_LLAMA, **_MIXTURE, "head_dim": 8, "norm_topk_prob": True},
    "gemma2": {**_LLAMA, "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 8},
    "gemma3_text": {**_LLAMA, "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 8},
    "phi3": _LLAMA,
    "opt": {
        "hidden_size": 32,
        "ffn_dim": 40,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
        "word_embed_proj_dim": 32,
    },
    "gpt2": {"n_embd": 32, "n_inner": 40, "n_layer": 3, "n_head": 4, "n_positions": 64},
    "gpt_neo": {
        "hidden_size": 32,
        "intermediate_size": 40,
        "num_layers": 3,
        "num_heads": 4,
        "max_position_embeddings": 64,
        "attention_types": [[["global", "local", "global"], 1]],
        "window_size": 8,
    },
    "gpt_neox": _BERT,
    "bert": _BERT,
    "electra": {**_BERT, "embedding_size": 16},
    "roberta": {**_BERT, "max_position_embeddings": 66},
    "xlm-roberta": {**_BERT, "max_position_embeddings": 66},
    "distilbert": {"dim": 32, "hidden_dim": 40, "n_layers": 3, "n_heads": 4, "max_position_embeddings": 64},
    "deberta-v2": {
        **_BERT,
        "relative_attention": True,
        "pos_att_type": ["c2p", "p2c"],
        "share_att_key": False,
        "position_buckets": 8,
    },
    "modernbert": {**_BERT, "local_attention": 8},
    "vit": {**_BERT, "image_size": 12, "patch_size": 4, "max_position_embeddings": None, "num_labels": 5},
    "bart": {**_BART, "max_position_embeddings": 64, "decoder_start_token_id": 2},
    "whisper": {
        **_BART,
        "num_mel_bins": 4,
        "max_source_positions": 10,
        "max_target_positions": 64,
        "decoder_start_token_id": 2,
    },
    "t5": {
        "d_model": 32,
        "d_ff": 40,
        "d_kv": 8,
        "num_layers": 3,
        "num_heads": 4,
        "feed_forward_proj": "gated-gelu",
        "decoder_start_token_id": 1,
    },
}
_HEADS = {
    "opt": "OPTForCausalLM",
    "gpt2": "GPT2LMHeadModel",
    "gemma3_text": "Gemma3ForCausalLM",
    "vit": "ViTForImageClassification",
    "bart": "BartForConditionalGeneration",
    "whisper": "WhisperForConditionalGeneration",
    "t5": "T5ForConditionalGeneration",
}
_PREFIXES = {
    "llama": "Llama",
    "mistral": "Mistral",
    "qwen2": "Qwen2",
    "qwen3": "Qwen3",
    "mixtral": "Mixtral",
    "qwen2_moe": "Qwen2Moe",
    "qwen3_moe": "Qwen3Moe",
    "gemma2": "Gemma2",
    "gemma3_text": "Gemma3Text",
    "phi3": "Phi3",
    "opt": "OPT",
    "gpt2": "GPT2",
    "gpt_neo": "GPTNeo",
    "gpt_neox": "GPTNeoX",
    "bert": "Bert",
    "electra": "Electra",
    "roberta": "Roberta",
    "xlm-roberta": "XLMRoberta",
    "distilbert": "DistilBert",
    "deberta-v2": "DebertaV2",
    "modernbert": "ModernBert",
    "vit": "ViT",
    "bart": "Bart",
    "whisper": "Whisper",
    "t5": "T5",
}


def tiny_model(model_type: str, *, head: str | None = None, seed: int = 0, **config: Any) -> PreTrainedModel:
    """A random model in fp32 and eval mode: 3 blocks, hidden 32, 4 heads of 8 columns, 40 neurons, 64 words.

    Of an encoder with a decoder, both have 3 blocks.

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
    settings._experts_implementation = "eager"  # torch's grouped product has no float64
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        model: PreTrainedModel = getattr(transformers, name)(settings)
    _randomise(model, torch.Generator().manual_seed(seed + 1))
    return model.eval()


def tiny_batch(
    model: PreTrainedModel, *, rows: int = 2, length: int = 12, seed: int = 0
) -> dict[str, Tensor]:
    """Random inputs for `model`, without padding; an image has 10 tokens, whatever the length."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, getattr(model.config, "vocab_size", 4), (rows, length), generator=generator)
    if "MultipleChoice" in type(model).__name__:
        ids = ids[:, None, :].repeat(1, 2, 1)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if model.main_input_name != "input_ids":
        shape = (3, 12, 12) if model.main_input_name == "pixel_values" else (4, 20)
        content = torch.randn((rows, *shape), generator=generator).to(model.dtype)
        mask = torch.ones((rows, 10), dtype=torch.int64)
        batch = {model.main_input_name: content, "attention_mask": mask}
    if model.config.is_encoder_decoder:
        batch["decoder_input_ids"] = ids.flip(1)
        batch["decoder_attention_mask"] = torch.ones_like(ids)
    return {name: value.to(model.device) for name, value in batch.items()}


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
        units = kept_of(site, kept[site.name])
        cut(block, site, units, own_columns(block, site, units))
    return model


def kept_of(site: Site, units: Sequence[int]) -> Tensor:
    """The units as a tensor; of experts other ones in each: those so many further round as its number."""
    shifts = range(site.experts or 1)
    rows = torch.tensor([sorted((unit + shift) % site.units for unit in units) for shift in shifts])
    return rows if site.experts else rows[0]


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
    """Other widths in every block: block 0 loses units of both kinds, block 1 neurons, block 2 heads.

    In each stack; of cross-attention, block 1 loses all units but one, and block 2 one.
    """
    anatomy = anatomy_of(model)
    kept: dict[str, Sequence[int]] = {}
    for site in anatomy.sites:
        units = range(site.units)
        by_block = {
            "attention": (units[1:], units, units[:1]),
            "cross_attention": (units, units[:1], units[1:]),
            "feed_forward": (range(3, 20), range(0, 40, 2), units),
            "experts": (range(3, 19), range(0, 40, 5), units),
            "shared_expert": (units, range(5), range(7)),
        }
        kept[site.name] = by_block[site.part][site.block % 3]
    return random_cut(model, kept)


@torch.no_grad()
def narrow_values(model: PreTrainedModel, value_dim: int = 5) -> PreTrainedModel:
    """The uneven cut, and of every head so many columns of its values."""
    model = uneven_cut(model)
    anatomy = anatomy_of(model)
    for site in (site for site in anatomy.sites if site.values_apart and site.carrier is not None):
        block = anatomy.blocks[site.block]
        values, reader = module_at(block, site.carrier.path), module_at(block, site.consumer)
        rows, columns = (
            torch.arange(size).reshape(-1, site.head_dim)[:, :value_dim].flatten()
            for size in (len(weight_of(values)), weight_of(reader).shape[1])
        )
        keep_outputs(values, rows)
        set_weight(reader, weight_of(reader)[:, columns])
        narrow_head_values(values, reader, site.head_dim, value_dim)
    return model


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
