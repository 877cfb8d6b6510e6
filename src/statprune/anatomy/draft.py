"""A draft entry for a model that has none, from the names and shapes of its modules."""

from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from statprune.anatomy.entry_file import UNKNOWN
from statprune.anatomy.producers import module_at, shape_of

# What the parts of a block are commonly called, by the last or the last two names of a path.
_COMMON = {
    "query": ("q_proj", "query", "q_lin", "q"),
    "key": ("k_proj", "key", "k_lin", "k"),
    "value": ("v_proj", "value", "v_lin", "v"),
    "out": ("o_proj", "out_proj", "out_lin", "attention.dense", "attn.dense", "attn.c_proj", "o", "proj"),
    "gate": ("gate_proj", "gate", "w1"),
    "up": ("up_proj", "fc1", "c_fc", "fc_in", "dense_h_to_4h", "lin1", "intermediate.dense", "w3", "wi"),
    "down": ("down_proj", "fc2", "mlp.c_proj", "fc_out", "dense_4h_to_h", "lin2", "output.dense", "w2", "wo"),
}
_FUSED = ("qkv_proj", "query_key_value", "c_attn", "Wqkv", "qkv")
_ACTIVATIONS = ("act_fn", "activation_fn", "act", "activation", "intermediate_act_fn", "activation_func")
_NORMS = ("post_attention_layernorm", "ffn_norm", "ln_2", "norm2", "final_layer_norm")
_WIDTHS = {
    "heads": ("num_attention_heads", "n_head", "num_heads", "n_heads"),
    "neurons": ("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size", "d_ff"),
    "kv_heads": ("num_key_value_heads",),
    "head_dim": ("head_dim",),
}


def draft_entry(model: PreTrainedModel) -> str:
    """Text of an entry's file, with the paths that could be recognised and "?" for the others.

    Every linear layer of the first block follows as a comment with its (outputs, inputs), so that the
    draft can be completed without opening the modelling file.
    """
    path, blocks = _longest_list(model.base_model)
    linears: dict[str, tuple[int, int]] = {}
    norms: list[str] = []
    if blocks is not None:
        for name, module in blocks[0].named_modules():
            if isinstance(module, nn.Linear | Conv1D):
                linears[name] = shape_of(module)
            elif "Norm" in type(module).__name__:
                norms.append(name)
    found = {part: _recognise(list(linears), names) for part, names in _COMMON.items()}
    fused = _recognise(list(linears), _FUSED)
    if fused != UNKNOWN:
        found |= {"query": fused, "key": fused, "value": fused}
    causal = "ForCausalLM" in type(model).__name__ or "LMHead" in type(model).__name__
    widths = {name: _width_of(model.config, names) for name, names in _WIDTHS.items()}
    optional = {name for name in ("kv_heads", "head_dim") if widths[name] == UNKNOWN}
    lines = [
        f"# A draft: check every line, and fill in what is {UNKNOWN}.",
        f'model_types = ["{model.config.model_type}"]',
        f'kind = "{"decoder" if causal else "encoder"}"',
        "",
        "[[stacks]]",
        f'blocks = "{path}"',
        "",
        "[stacks.widths]",
        *(f'{name} = "{value}"' for name, value in widths.items() if name not in optional),
        "",
        "[stacks.attention]",
        *(f'{part} = "{found[part]}"' for part in ("query", "key", "value", "out")),
        *(() if fused == UNKNOWN else (f'fused = "{UNKNOWN}"  # "concatenated" or "interleaved"',)),
        "",
        "[stacks.feed_forward]",
        *(() if found["gate"] == UNKNOWN else (f'gate = "{found["gate"]}"',)),
        *(f'{part} = "{found[part]}"' for part in ("up", "down")),
        _activation(blocks, found["up"]),
        f'residual = ["{_recognise(norms, _NORMS)}"]  # the norm in front of it',
        "",
        "# The linear layers of its first block, (outputs, inputs):",
        *(f"# {name}: {shape}" for name, shape in linears.items()),
        *(f"# norm: {name}" for name in norms),
    ]
    return "\n".join(lines)


def _activation(blocks: nn.ModuleList | None, up: str) -> str:
    """The line that says where the first block keeps its activation, beside `up` or itself."""
    beside = up.rpartition(".")[0]
    paths = [f"{beside}.{name}" for name in _ACTIVATIONS] if beside else []
    for path in (*paths, *_ACTIVATIONS):
        if blocks is not None and _is_callable_at(blocks[0], path):
            return f'activation = "{path}"'
    return f'# activation = "{UNKNOWN}"  # without it, what is in front of it is not refitted'


def _is_callable_at(block: nn.Module, path: str) -> bool:
    try:
        return callable(module_at(block, path))
    except AttributeError:
        return False


def _width_of(config: Any, names: tuple[str, ...]) -> str:
    """The first of `names` that the config has, if one with a value, by the name that it is stored under."""
    held = [name for name in names if hasattr(config, name)]
    found = next((name for name in held if getattr(config, name) is not None), UNKNOWN)
    if found == UNKNOWN and names == _WIDTHS["neurons"] and held:
        found = held[0]  # GPT-2 and GPT-J: n_inner is None where it is four times the hidden size
    return str(config.attribute_map.get(found, found))


def _longest_list(base: nn.Module) -> tuple[str, nn.ModuleList | None]:
    lists = [(name, module) for name, module in base.named_modules() if isinstance(module, nn.ModuleList)]
    top = [(n, m) for n, m in lists if not any(n.startswith(f"{other}.") for other, _ in lists)]
    return max(top, key=lambda pair: len(pair[1]), default=(UNKNOWN, None))


def _recognise(paths: list[str], names: tuple[str, ...]) -> str:
    for name in names:
        # The whole path first: BERT has output.dense and attention.output.dense.
        found = [path for path in paths if path == name] or [
            path for path in paths if path.endswith(f".{name}")
        ]
        if found:
            return found[0]
    return UNKNOWN
