"""Weights of a transformers model -> tensors of a GGUF file, one at a time."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from statprune.errors import InputError
from statprune.export.gguf_widths import ROTATES_PAIRS, FileWidths, is_tied, rope_of

DTYPES = ("auto", "f32", "f16", "bf16", "q8_0")
_OF_TORCH = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}
_Q8_ROW, _K_ROW = 32, 256
_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


@dataclass(frozen=True, eq=False)
class Planned:
    """A tensor that is to be written: made when it is needed, so that the model is never there twice."""

    name: str
    dtype: str
    """f32, f16, bf16 or q8_0."""
    make: Callable[[], Tensor]

    def encoded(self) -> "np.ndarray[Any, Any]":
        """Its bytes, as rows."""
        from gguf import GGMLQuantizationType, quants  # noqa: PLC0415 - an optional library

        values = self.make().detach().cpu().float().contiguous().numpy()
        return np.ascontiguousarray(quants.quantize(values, GGMLQuantizationType[self.dtype.upper()]))


def dtype_of(model: PreTrainedModel, dtype: str) -> str:
    """What matrices are written in: `dtype`, or for "auto" what the model has.

    Raises:
        InputError: it is none of those that can be written, or 16-bit floats cannot hold the weights.
    """
    if dtype not in DTYPES:
        raise InputError(f"dtype is '{dtype}'; a GGUF is written as one of {', '.join(DTYPES)}.")
    chosen = _OF_TORCH.get(model.dtype, "f32") if dtype == "auto" else dtype
    if chosen in ("f16", "q8_0") and model.dtype is not torch.float16:
        for name, weight in model.named_parameters():
            largest = weight.abs().max().item() if weight.numel() else 0.0
            if largest > torch.finfo(torch.float16).max:
                raise InputError(
                    f"{name} reaches {largest:.3g}, more than f16 (and the scales of q8_0) can hold. "
                    f"Export with dtype bf16 or f32."
                )
    return chosen


def planned_tensors(model: PreTrainedModel, widths: FileWidths, dtype: str) -> list[Planned]:
    """Every tensor of the file, in order; matrices as `dtype`, q8_0 rows that do not fit as f16."""
    planned = [
        Planned(name, _dtype_for(make(), dtype), make)
        for name, make in _tensors(model, widths)
    ]  # fmt: skip
    names = [each.name for each in planned]
    if len(set(names)) != len(names):
        raise ValueError(f"two tensors of one name among {sorted(names)}")
    return planned


def notes_on_rows(planned: list[Planned]) -> list[str]:
    """What row lengths cost once the file is quantised, here or by llama.cpp."""
    rows = {each.name: each.make().shape[-1] for each in planned if each.make().ndim > 1}
    found = (
        (
            [name for name, length in rows.items() if length % _Q8_ROW],
            f"stay f16 when quantised, here or by llama.cpp: their rows are no multiples of {_Q8_ROW}.",
            _Q8_ROW,
        ),
        (
            [name for name, length in rows.items() if length % _K_ROW and length % _Q8_ROW == 0],
            f"get larger types than llama.cpp's K-quants: their rows are no multiples of {_K_ROW}.",
            _K_ROW,
        ),
    )
    return [f"{_some(names)} {cost}{_remedy(names, multiple)}" for names, cost, multiple in found if names]


def _remedy(names: list[str], multiple: int) -> str:
    if not any(name.endswith("ffn_down.weight") for name in names):
        return ""
    return f" For ffn_down, `statprune compress --multiple {multiple}` avoids it."


def _some(names: list[str]) -> str:
    kinds = sorted({name.split(".", 2)[-1] if name.startswith("blk.") else name for name in names})
    return f"{len(names)} tensors ({', '.join(kinds)})" if len(names) > 1 else names[0]


def _dtype_for(tensor: Tensor, dtype: str) -> str:
    # llama.cpp adds and multiplies vectors as f32 alone.
    if tensor.ndim == 1:
        return "f32"
    return "f16" if dtype == "q8_0" and tensor.shape[-1] % _Q8_ROW else dtype


def _tensors(model: PreTrainedModel, widths: FileWidths) -> Iterator[tuple[str, Callable[[], Tensor]]]:
    base: Any = model.base_model
    yield "token_embd.weight", lambda: base.embed_tokens.weight
    factors = rope_factors(model, widths)
    if factors is not None:
        yield "rope_freqs.weight", lambda: factors
    for index, layer in enumerate(base.layers):
        for name, tensor in _block(layer, widths, index).items():
            yield f"blk.{index}.{name}", tensor
    yield "output_norm.weight", lambda: base.norm.weight
    if not is_tied(model):
        head: Any = model.get_output_embeddings()
        yield "output.weight", lambda: head.weight


def _block(layer: Any, widths: FileWidths, index: int) -> dict[str, Callable[[], Tensor]]:
    made: dict[str, Callable[[], Tensor]] = {}
    for own, parameter in layer.named_parameters():
        module, _, kind = own.rpartition(".")
        name = _NAMES.get(module)
        if name is None:
            raise ValueError(f"blocks.{index}: {own} has no name in llama.cpp")
        made[f"{name}.{kind}"] = _reading(parameter, module, widths, index)
    if widths.heads[index] == 0:
        return {name: make for name, make in made.items() if not name.startswith("attn_")}
    if widths.architecture == "openelm":
        parts = [made.pop(f"attn_{part}.weight") for part in "qkv"]
        made["attn_qkv.weight"] = lambda: torch.cat([part() for part in parts])
    return made


def _reading(parameter: Tensor, module: str, widths: FileWidths, index: int) -> Callable[[], Tensor]:
    """How one weight or bias of a block is written: zeros where a unit was added, pairs brought together."""
    shape = list(parameter.shape)
    columns = widths.head_dim
    sizes = {
        "self_attn.q_proj": (0, widths.heads[index] * columns),
        "self_attn.k_proj": (0, widths.kv_heads[index] * columns),
        "self_attn.v_proj": (0, widths.kv_heads[index] * columns),
        "self_attn.o_proj": (1, widths.heads[index] * columns),
        "mlp.gate_proj": (0, widths.neurons[index]),
        "mlp.up_proj": (0, widths.neurons[index]),
        "mlp.down_proj": (1, widths.neurons[index]),
    }
    dimension, size = sizes.get(module, (0, shape[0]))
    added = dimension < len(shape) and shape[dimension] == 0
    if added:
        shape[dimension] = size
        return lambda: parameter.new_zeros(shape)
    if module in ("self_attn.q_proj", "self_attn.k_proj") and widths.architecture in ROTATES_PAIRS:
        return lambda: in_pairs(parameter, columns)
    return lambda: parameter


def in_pairs(weight: Tensor, columns: int) -> Tensor:
    """Rows of every head reordered: those that a rotation mixes, half a head apart, become neighbours."""
    halves = weight.reshape(-1, 2, columns // 2, *weight.shape[1:])
    return halves.transpose(1, 2).reshape(weight.shape)


def rope_factors(model: PreTrainedModel, widths: FileWidths) -> Tensor | None:
    """By what the plain frequencies are divided, pair by pair; None where they are plain, or scaled alike."""
    rope = rope_of(model.config)
    if rope["rope_type"] != "llama3":
        return None
    base: Any = model.base_model
    exponents = torch.arange(0, widths.head_dim, 2, dtype=torch.float64) / widths.head_dim
    plain = float(rope["rope_theta"]) ** -exponents
    scaled: Tensor = base.rotary_emb.inv_freq
    return (plain / scaled.double().cpu()).float()
