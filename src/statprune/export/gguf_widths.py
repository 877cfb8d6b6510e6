"""What llama.cpp can say of a model: the architecture that fits its widths, or why none does.

Of its architectures few have widths of their own in every block: `deci` computes what Llama, Mistral, Qwen2
and Phi-3 compute, `openelm` what Qwen3 with tied embeddings computes. The stock ones read one width.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel

from statprune.anatomy.block_sites import has_experts
from statprune.anatomy.head_values import columns_read
from statprune.anatomy.lookup import entry_for, head_dim_of
from statprune.anatomy.parts import DOWN, Stack
from statprune.anatomy.producers import module_at, shape_of
from statprune.checkpoint.classes import stock_class_of
from statprune.checkpoint.per_layer_model import PerLayerWidths
from statprune.errors import ModelError
from statprune.export.gguf_families import GELU_TANH, MODEL_TYPES, Family, FileArchitecture, family_of
from statprune.export.gguf_options import refuse_options, refuse_rope

UNIFORM = "`statprune compress --widths uniform` gives every block the same widths."


@dataclass(frozen=True)
class FileWidths:
    """How a model is written, and its widths as the file says them, block by block."""

    family: Family
    architecture: FileArchitecture
    stack: Stack
    heads: tuple[int, ...]
    kv_heads: tuple[int, ...]
    neurons: tuple[int, ...]
    """Of experts, where blocks have them: those of one."""
    shared: tuple[int, ...]
    """Of the expert that all tokens go to; 0 where there is none."""
    head_dim: int
    hidden: int
    notes: tuple[str, ...] = ()


def widths_of(model: PreTrainedModel) -> FileWidths:
    """The widths of `model` and the architecture of llama.cpp for them; weights are not read.

    Raises:
        ModelError: no architecture of llama.cpp computes what this model computes.
    """
    config: Any = model.config
    family, stack = _known(model)
    refuse_options(config, family)
    head_dim = head_dim_of(stack, config)
    blocks = module_at(model.base_model, stack.blocks)
    _refuse_missing_experts(stack, blocks)
    found = [_widths_of_block(stack, block, head_dim) for block in blocks]
    by_name = {name: [each[name] for each in found] for name in found[0]}
    architecture = _architecture(model, family, by_name, head_dim)
    _refuse_biases(model, family, architecture)
    refuse_rope(config, family, architecture)
    heads, kv_heads, neurons, shared = by_name.values()
    notes = _fill_empty(architecture, config, heads, kv_heads, neurons) + _notes_on_gelu(config, family)
    return FileWidths(
        family,
        architecture,
        stack,
        tuple(heads),
        tuple(kv_heads),
        tuple(neurons),
        tuple(shared),
        head_dim,
        int(config.hidden_size),
        tuple(notes),
    )


def _known(model: PreTrainedModel) -> tuple[Family, Stack]:
    model_type, name = model.config.model_type, stock_class_of(type(model)).__name__
    family, entry = family_of(model_type), entry_for(model_type)
    if family is None or entry is None:
        per_layer = issubclass(type(model), PerLayerWidths)
        advice = "" if per_layer else " For others use llama.cpp's own convert_hf_to_gguf.py."
        raise ModelError(
            f"model type '{model_type}' cannot be written as GGUF: this export knows "
            f"{', '.join(MODEL_TYPES)}.{advice}"
        )
    if not name.endswith(("ForCausalLM", "LMHeadModel")):
        raise ModelError(
            f"{name} has no language-modelling head, and llama.cpp's '{family.architectures[0].name}' has. "
            f"Export the model with its language-modelling head."
        )
    return family, entry.stacks[0]


def _refuse_missing_experts(stack: Stack, blocks: Any) -> None:
    without = [index for index, block in enumerate(blocks) if not has_experts(stack, block)]
    if stack.experts is not None and without:
        raise ModelError(
            f"block {without[0]} has an ordinary perceptron (mlp_only_layers, decoder_sparse_step), and "
            f"llama.cpp's architecture has experts in every block. No GGUF can say this model."
        )


def _widths_of_block(stack: Stack, block: Any, head_dim: int) -> Mapping[str, int]:
    """Heads, key-value heads, neurons, neurons of the shared expert; 0 is possible."""
    attention: Any = stack.attention
    reader = module_at(block, attention.out)
    heads = shape_of(reader)[1] // columns_read(reader, head_dim)
    rows = shape_of(module_at(block, attention.key))[0] // head_dim
    widths = {"heads": heads, "key-value heads": rows if attention.fused is None else (rows - heads) // 2}
    forward, shared = stack.feed_forward, stack.shared_expert
    if stack.experts is not None:
        widths["neurons"] = getattr(module_at(block, stack.experts.path), DOWN).shape[2]
    else:
        widths["neurons"] = shape_of(module_at(block, getattr(forward, "down", "")))[1]
    widths["neurons of the shared expert"] = shape_of(module_at(block, shared.down))[1] if shared else 0
    return widths


def _architecture(
    model: PreTrainedModel, family: Family, widths: Mapping[str, list[int]], head_dim: int
) -> FileArchitecture:
    """The first of the family's that can say the widths."""
    uneven = [name for name, values in widths.items() if len(set(values)) > 1]
    heads, kv_heads = widths["heads"][0], widths["key-value heads"][0]
    hidden = int(model.config.hidden_size)
    partly = heads * head_dim != hidden
    reasons = []
    for each in family.architectures:
        if uneven and not each.per_layer:
            reasons.append(
                f"blocks differ in {' and '.join(uneven)}, and llama.cpp's '{each.name}' reads one width for "
                f"all of them"
            )
        elif each.whole and partly:
            reasons.append(
                f"{heads} heads of {head_dim} columns do not fill the hidden size {hidden}, which "
                f"llama.cpp's '{each.name}' takes them for"
            )
        elif each.output == "tied" and not is_tied(model):
            reasons.append(f"llama.cpp's '{each.name}' can say it only with tied embeddings")
        else:
            return each
    remedy = f"{_nearest(widths)} {UNIFORM}" if uneven else "No GGUF can say this model."
    if family.architectures[0].whole:
        units = hidden // head_dim // max(1, heads // max(1, kv_heads))
        remedy = (
            f"`statprune compress --widths uniform --floor attention={units}` gives every block the same "
            f"widths and keeps all heads."
        )
    raise ModelError(f"{'; '.join(reasons)}. {remedy}")


def _nearest(widths: Mapping[str, list[int]]) -> str:
    """The same widths in every block that are nearest to these, in words."""
    means = {name: round(sum(values) / len(values)) for name, values in widths.items() if any(values)}
    group = max(1, widths["heads"][0] // max(1, widths["key-value heads"][0]))
    means["key-value heads"] = max(1, means.get("key-value heads", 1))
    means["heads"] = group * means["key-value heads"]
    told = ", ".join(f"{width} {name}" for name, width in means.items())
    return f"The nearest that it can say: {told} in every block."


def is_tied(model: PreTrainedModel) -> bool:
    """Whether the output matrix is the embedding."""
    output, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if bool(getattr(model.config, "tie_word_embeddings", False)):
        return True
    return output is not None and output.weight is embedding.weight


def _refuse_biases(model: PreTrainedModel, family: Family, architecture: FileArchitecture) -> None:
    places = {family.final_norm: "output_norm", **family.names}
    for name, _ in model.named_parameters():
        module = name.removesuffix(".bias")
        tensor = next((places[each] for each in places if f".{module}".endswith(f".{each}")), "output")
        parts = (tensor,) if isinstance(tensor, str) else tensor
        if module != name and not set(parts) <= set(architecture.biases):
            raise ModelError(
                f"{name}: llama.cpp's '{architecture.name}' has no place for this bias, and would drop it in "
                f"silence. {UNIFORM if architecture.per_layer else 'No GGUF can say this model.'}"
            )


def _notes_on_gelu(config: Any, family: Family) -> list[str]:
    name, known = family.activation
    given = getattr(config, name)
    if given in GELU_TANH or "gelu" not in known:
        return []
    return [f"{name} is '{given}', and llama.cpp computes its tanh form: each neuron up to 0.0005 off."]


def _fill_empty(
    architecture: FileArchitecture, config: Any, heads: list[int], kv_heads: list[int], neurons: list[int]
) -> list[str]:
    """Give blocks without neurons one that is zero, and blocks without heads one where that is needed.

    Without a word, `deci` forgets the attention of a block without neurons, and the output bias of an
    attention without heads. It aborts at a last block with neither, and does not open where block 0 has none.
    """
    silent = [index for index, width in enumerate(neurons) if width == 0]
    for index in silent:
        neurons[index] = 1
    keeps_bias = architecture.name != "deci" or bool(getattr(config, "attention_bias", False))
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
