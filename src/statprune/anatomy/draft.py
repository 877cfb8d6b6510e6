"""A draft entry for a model that has none, from the names and shapes of its modules."""

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from statprune.anatomy.producers import shape_of

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


def draft_entry(model: PreTrainedModel) -> str:
    """Source of an `Architecture(...)` with the paths that could be recognised and `?` for the others.

    Every linear layer of the first block follows as a comment with its (outputs, inputs), so that the
    draft can be completed without opening the modelling file.
    """
    base = model.base_model
    path, blocks = _longest_list(base)
    linears: dict[str, tuple[int, int]] = {}
    if blocks is not None:
        linears = {
            name: shape_of(module)
            for name, module in blocks[0].named_modules()
            if isinstance(module, nn.Linear | Conv1D)
        }
    found = {part: _recognise(linears, names) for part, names in _COMMON.items()}
    gate = f'gate="{found["gate"]}", ' if found["gate"] != "?" else ""
    causal = "ForCausalLM" in type(model).__name__ or "LMHead" in type(model).__name__
    lines = [
        "Architecture(",
        f'    model_types=("{model.config.model_type}",),',
        f'    kind="{"decoder" if causal else "encoder"}",',
        f'    blocks="{path}",',
        "    attention=Attention(",
        *(f'        {part}="{found[part]}",' for part in ("query", "key", "value", "out")),
        "    ),",
        f'    feed_forward=FeedForward({gate}up="{found["up"]}", down="{found["down"]}", residual="?"),',
        '    widths=Widths(heads="num_attention_heads", neurons="intermediate_size"),',
        ")",
        *(f"# {name}: {shape}" for name, shape in linears.items()),
    ]
    return "\n".join(lines)


def _longest_list(base: nn.Module) -> tuple[str, nn.ModuleList | None]:
    lists = [(name, module) for name, module in base.named_modules() if isinstance(module, nn.ModuleList)]
    top = [(n, m) for n, m in lists if not any(n.startswith(f"{other}.") for other, _ in lists)]
    return max(top, key=lambda pair: len(pair[1]), default=("?", None))


def _recognise(linears: dict[str, tuple[int, int]], names: tuple[str, ...]) -> str:
    for name in names:
        for path in linears:
            if path == name or path.endswith(f".{name}"):
                return path
    return "?"
