"""What llama.cpp can say of a model: the architecture that fits its widths, or why none does.

Of its architectures few have widths of their own in every block: `deci` computes what Llama, Mistral and
Qwen2 compute, `openelm` what Qwen3 with tied embeddings computes. The stock ones read one width.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel

from statprune.anatomy.lookup import entry_for, head_dim_of
from statprune.checkpoint.classes import stock_class_of
from statprune.errors import ModelError

MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3")
PER_LAYER = ("deci", "openelm")
ROTATES_PAIRS = ("llama", "deci")
"""Architectures that rotate neighbouring columns; the others, as transformers, those half a head apart."""
_ROPE = ("default", "linear", "llama3")
_BIASES: Mapping[str, tuple[str, ...]] = {
    "llama": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    "deci": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    "qwen2": ("q_proj", "k_proj", "v_proj"),
    "qwen3": (),
    "openelm": (),
}
_UNIFORM = "`statprune compress --widths uniform` gives every block the same widths."


@dataclass(frozen=True)
class FileWidths:
    """The architecture that says a model, and the widths as the file says them, block by block."""

    architecture: str
    heads: tuple[int, ...]
    kv_heads: tuple[int, ...]
    neurons: tuple[int, ...]
    head_dim: int
    hidden: int
    notes: tuple[str, ...] = ()

    @property
    def per_layer(self) -> bool:
        """Whether the file gives each block its own."""
        return self.architecture in PER_LAYER


def widths_of(model: PreTrainedModel) -> FileWidths:
    """The widths of `model` and the architecture of llama.cpp for them; weights are not read.

    Raises:
        ModelError: no architecture of llama.cpp computes what this model computes.
    """
    _refuse_class(model)
    config: Any = model.config
    _refuse_arithmetic(config)
    head_dim = head_dim_of(_stack(config), config)
    layers: Any = model.base_model.layers
    heads = [layer.self_attn.q_proj.weight.shape[0] // head_dim for layer in layers]
    kv_heads = [layer.self_attn.k_proj.weight.shape[0] // head_dim for layer in layers]
    neurons = [layer.mlp.up_proj.weight.shape[0] for layer in layers]
    uneven = [
        name
        for name, values in (("heads", heads), ("key-value heads", kv_heads), ("neurons", neurons))
        if len(set(values)) > 1
    ]
    architecture = _architecture(model, uneven, heads[0] * head_dim)
    _refuse_biases(model, architecture)
    _refuse_rope(config, architecture)
    notes = _fill_empty(architecture, config, heads, kv_heads, neurons)
    return FileWidths(
        architecture,
        tuple(heads),
        tuple(kv_heads),
        tuple(neurons),
        head_dim,
        int(config.hidden_size),
        tuple(notes),
    )


def _stack(config: Any) -> Any:
    entry = entry_for(config.model_type)
    return entry.stacks[0] if entry is not None else None


def _refuse_class(model: PreTrainedModel) -> None:
    model_type, name = model.config.model_type, stock_class_of(type(model)).__name__
    if model_type not in MODEL_TYPES:
        raise ModelError(
            f"model type '{model_type}' cannot be written as GGUF: this export knows "
            f"{', '.join(MODEL_TYPES)}. For other dense models use llama.cpp's own convert_hf_to_gguf.py."
        )
    if not name.endswith("ForCausalLM"):
        raise ModelError(
            f"{name} has no language-modelling head, and llama.cpp's '{model_type}' has. "
            f"Export the ...ForCausalLM model."
        )


def _refuse_arithmetic(config: Any) -> None:
    if config.hidden_act not in ("silu", "swish"):
        raise ModelError(
            f"hidden_act is '{config.hidden_act}'; llama.cpp's {config.model_type} computes silu and nothing "
            f"else. No GGUF can say this model."
        )
    window = getattr(config, "sliding_window", None)
    layer_types = getattr(config, "layer_types", None) or ["full_attention"]
    narrow = window is not None and window < config.max_position_embeddings
    if "sliding_attention" in layer_types or (config.model_type == "mistral" and narrow):
        raise ModelError(
            f"its attention sees a sliding window of {window} tokens, and the architectures that this export "
            f"writes see all {config.max_position_embeddings}. If you stay within {window} tokens, set "
            f"sliding_window to null and max_position_embeddings to {window} in a copy of the folder: on "
            f"such texts that is the same model."
        )
    share = (getattr(config, "rope_parameters", None) or {}).get("partial_rotary_factor", 1.0)
    if share != 1.0:
        raise ModelError(f"it rotates {share} of each head (partial_rotary_factor); llama.cpp rotates all.")


def _architecture(model: PreTrainedModel, uneven: list[str], read: int) -> str:
    config: Any = model.config
    model_type = config.model_type
    if model_type in ("llama", "mistral"):
        return "deci" if uneven else "llama"
    if model_type == "qwen2":
        # llama.cpp's qwen2 takes heads * columns for the hidden size.
        return "deci" if uneven or read != config.hidden_size else "qwen2"
    if not uneven:
        return "qwen3"
    if not is_tied(model):
        raise ModelError(
            f"blocks differ in {' and '.join(uneven)}, and of a qwen3 with an output matrix of its own "
            f"llama.cpp can say one width for all blocks; only with tied embeddings each its own. {_UNIFORM}"
        )
    return "openelm"


def is_tied(model: PreTrainedModel) -> bool:
    """Whether the output matrix is the embedding."""
    output, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if bool(getattr(model.config, "tie_word_embeddings", False)):
        return True
    return output is not None and output.weight is embedding.weight


def _refuse_biases(model: PreTrainedModel, architecture: str) -> None:
    for name, _ in model.named_parameters():
        layer = name.split(".")[-2]
        if name.endswith(".bias") and layer not in _BIASES[architecture]:
            raise ModelError(
                f"{name}: llama.cpp's '{architecture}' has no place for this bias, and would drop it in "
                f"silence. {_UNIFORM if architecture in PER_LAYER else 'No GGUF can say this model.'}"
            )


def _refuse_rope(config: Any, architecture: str) -> None:
    kind = rope_of(config)["rope_type"]
    known = tuple(each for each in _ROPE if each != "llama3" or architecture != "openelm")
    if kind not in known:
        raise ModelError(
            f"its positions are scaled by '{kind}' (rope_parameters); written as '{architecture}' they can "
            f"be scaled by {', '.join(known)}. If you stay within the original context, give the folder the "
            f"default rope_parameters."
        )


def rope_of(config: Any) -> dict[str, Any]:
    """The config's rope parameters, with the type and the base always there."""
    given = dict(getattr(config, "rope_parameters", None) or {})
    kind = given.get("rope_type") or given.get("type") or "default"
    return {"rope_theta": getattr(config, "rope_theta", 10000.0), **given, "rope_type": kind}


def _fill_empty(
    architecture: str, config: Any, heads: list[int], kv_heads: list[int], neurons: list[int]
) -> list[str]:
    """Give blocks without neurons one that is zero, and blocks without heads one where that is needed.

    Without a word, `deci` forgets the attention of a block without neurons, and the output bias of an
    attention without heads. It aborts at a last block with neither, and does not open where block 0 has none.
    """
    silent = [index for index, width in enumerate(neurons) if width == 0]
    for index in silent:
        neurons[index] = 1
    keeps_bias = architecture != "deci" or bool(getattr(config, "attention_bias", False))
    headless = [index for index, width in enumerate(heads) if width == 0 and (index == 0 or keeps_bias)]
    for index in headless:
        heads[index] = kv_heads[index] = 1
    found = (("neurons", "neuron", silent), ("heads", "head", headless))
    return [
        f"blocks {', '.join(map(str, blocks))} have no {none}: written with one {one} of zeros, which "
        f"changes nothing."
        for none, one, blocks in found
        if blocks
    ]
