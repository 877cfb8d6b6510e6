"""Weights of a transformers model -> tensors of a GGUF file, one at a time."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from statprune.anatomy.head_values import NarrowReader, NarrowValues
from statprune.anatomy.producers import module_at
from statprune.errors import InputError
from statprune.export.gguf_options import rope_of
from statprune.export.gguf_widths import FileWidths, is_tied

Make = Callable[[], Tensor]
DTYPES = ("auto", "f32", "f16", "bf16", "q8_0")
_OF_TORCH = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}
_Q8_ROW, _K_ROW = 32, 256
_ALWAYS_F32 = ("position_embd.weight", "ffn_gate_inp.weight")
"""Small, and a router that is a little off picks other experts."""


@dataclass(frozen=True, eq=False)
class Planned:
    """A tensor that is to be written: made when it is needed, so that the model is never there twice."""

    name: str
    dtype: str
    """f32, f16, bf16 or q8_0."""
    make: Make

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
        Planned(name, _dtype_for(name, make(), dtype), make)
        for name, make in _tensors(model, widths)
    ]  # fmt: skip
    names = [each.name for each in planned]
    if len(set(names)) != len(names):
        raise ValueError(f"two tensors of one name among {sorted(names)}")
    return planned


def notes_on_rows(planned: list[Planned]) -> list[str]:
    """What row lengths cost once the file is quantised, here or by llama.cpp."""
    matrices = [each for each in planned if not each.name.endswith(_ALWAYS_F32) and each.make().ndim > 1]
    rows = {each.name: each.make().shape[-1] for each in matrices}
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
    if not any(".ffn_down" in name for name in names):
        return ""
    return f" For ffn_down, `statprune compress --multiple {multiple}` avoids it."


def _some(names: list[str]) -> str:
    kinds = sorted({name.split(".", 2)[-1] if name.startswith("blk.") else name for name in names})
    return f"{len(names)} tensors ({', '.join(kinds)})" if len(names) > 1 else names[0]


def _dtype_for(name: str, tensor: Tensor, dtype: str) -> str:
    # llama.cpp adds and multiplies vectors as f32 alone.
    if tensor.ndim == 1 or name.endswith(_ALWAYS_F32):
        return "f32"
    return "f16" if dtype == "q8_0" and tensor.shape[-1] % _Q8_ROW else dtype


def _tensors(model: PreTrainedModel, widths: FileWidths) -> Iterator[tuple[str, Make]]:
    base: Any = model.base_model
    family = widths.family
    embedding: Any = model.get_input_embeddings()
    yield "token_embd.weight", lambda: embedding.weight
    if family.positions is not None:
        positions = module_at(base, family.positions)
        yield "position_embd.weight", lambda: positions.weight
    factors = rope_factors(model, widths)
    if factors is not None:
        yield "rope_freqs.weight", lambda: factors
    for index, block in enumerate(module_at(base, widths.stack.blocks)):
        for name, make in _block(block, model, widths, index).items():
            yield f"blk.{index}.{name}", make
    for kind, parameter in module_at(base, family.final_norm).named_parameters():
        yield f"output_norm.{kind}", _shifted(_whole(parameter), kind, family.norm_offset)
    if widths.architecture.output == "needed" or not is_tied(model):
        head: Any = model.get_output_embeddings()
        yield "output.weight", lambda: head.weight


def _block(block: Any, model: PreTrainedModel, widths: FileWidths, index: int) -> dict[str, Make]:
    made: dict[str, Make] = {}
    for path, parameter in block.named_parameters():
        module, _, kind = path.rpartition(".")
        names = widths.family.names.get(path) or widths.family.names.get(module)
        if names is None:
            raise ValueError(f"blocks.{index}: {path} has no name in llama.cpp")
        turned = kind == "weight" and isinstance(module_at(block, module), Conv1D)
        whole = _whole(parameter, turned=turned)
        if isinstance(module_at(block, module), NarrowValues | NarrowReader):
            whole = _widened(module_at(block, module), parameter)
        parts = (names,) if isinstance(names, str) else names
        for part, name in enumerate(parts):
            suffix = "bias" if kind == "bias" else "weight"
            made[f"{name}.{suffix}"] = _part(whole, part, len(parts), widths, index)
    if widths.heads[index] == 0:
        made = {name: make for name, make in made.items() if not name.startswith("attn_")}
    made = {name: _as_said(name, make, model, widths, index) for name, make in made.items()}
    return _fused(made, widths)


def _whole(parameter: Tensor, *, turned: bool = False) -> Make:
    return lambda: parameter.T if turned else parameter


def _widened(layer: NarrowValues | NarrowReader, parameter: Tensor) -> Make:
    """With zeros for the columns that values of heads lack: llama.cpp's are as wide as keys."""
    reads = isinstance(layer, NarrowReader)
    if reads and parameter.ndim == 1:
        return lambda: parameter

    def made() -> Tensor:
        rows = parameter.T if reads else parameter
        heads = rows.reshape(-1, layer.value_dim, *rows.shape[1:])
        missing = heads.new_zeros(len(heads), layer.head_dim - layer.value_dim, *rows.shape[1:])
        whole = torch.cat([heads, missing], dim=1).flatten(0, 1)
        return whole.T if reads else whole

    return made


def _part(whole: Make, part: int, parts: int, widths: FileWidths, index: int) -> Make:
    """One of those that a weight holds: gate and up are halves; query, key and value as the anatomy says."""
    if parts == 1:
        return whole
    if parts == 2:
        return lambda: whole().chunk(2, dim=max(0, whole().ndim - 2))[part]
    columns, attention = widths.head_dim, widths.stack.attention
    if getattr(attention, "fused", None) == "interleaved":

        def section() -> Tensor:
            rows = whole()
            return rows.reshape(-1, 3, columns, *rows.shape[1:])[:, part].reshape(-1, *rows.shape[1:])

        return section
    heads, kv_heads = widths.heads[index], widths.kv_heads[index]

    def stacked() -> Tensor:
        rows = whole()
        kv_rows = len(rows) * kv_heads // (heads + 2 * kv_heads)
        return torch.split(rows, [len(rows) - 2 * kv_rows, kv_rows, kv_rows])[part]

    return stacked


def _as_said(name: str, make: Make, model: PreTrainedModel, widths: FileWidths, index: int) -> Make:
    """A tensor as llama.cpp takes it: zeros where a unit was added, pairs together, scales taken up."""
    tensor, _, kind = name.partition(".")
    columns = widths.head_dim
    sizes = {
        "attn_q": (0, widths.heads[index] * columns),
        "attn_k": (0, widths.kv_heads[index] * columns),
        "attn_v": (0, widths.kv_heads[index] * columns),
        "attn_output": (1, widths.heads[index] * columns),
        "ffn_gate": (0, widths.neurons[index]),
        "ffn_up": (0, widths.neurons[index]),
        "ffn_down": (1, widths.neurons[index]),
    }
    shape = list(make().shape)
    dimension, size = sizes.get(tensor, (0, shape[0]))
    if dimension < len(shape) and shape[dimension] == 0:
        shape[dimension] = size
        return lambda: make().new_zeros(shape)
    if tensor in ("attn_q", "attn_k") and widths.architecture.pairs:
        return lambda: in_pairs(make(), columns)
    if tensor == "ffn_gate_inp_shexp":
        return lambda: make().reshape(-1)
    shifted = _shifted(make, kind, widths.family.norm_offset) if tensor.endswith("norm") else make
    factor = query_factor(model, widths)
    if widths.family.query_scale is None or tensor != widths.family.query_scale[0] or factor == 1.0:
        return shifted
    return lambda: shifted().float() * factor


def _shifted(make: Make, kind: str, offset: float) -> Make:
    """The weight of a norm, from what the model keeps of it."""
    return make if kind == "bias" or not offset else lambda: make().float() + offset


def query_factor(model: PreTrainedModel, widths: FileWidths) -> float:
    """By what queries are multiplied, so that what llama.cpp divides scores by comes out as the model's."""
    if widths.family.query_scale is None:
        return 1.0
    large = len(widths.heads) == widths.family.query_scale[1]
    divides_by = widths.hidden // widths.heads[0] if large else widths.head_dim
    return float((divides_by / model.config.query_pre_attn_scalar) ** 0.5)


def _fused(made: dict[str, Make], widths: FileWidths) -> dict[str, Make]:
    """With the tensors that the architecture wants in one, and the biases that it must have."""
    for whole, parts in widths.architecture.fused.items():
        for kind in ("weight", "bias"):
            makes = [made.pop(f"{part}.{kind}") for part in parts if f"{part}.{kind}" in made]
            if makes:
                made[f"{whole}.{kind}"] = _joined(makes)
    for name in widths.architecture.needed_biases:
        weight = made[f"{name}.weight"]
        made.setdefault(f"{name}.bias", lambda weight=weight: weight().new_zeros(len(weight())))  # type: ignore[misc]
    return made


def _joined(makes: list[Make]) -> Make:
    return lambda: torch.cat([make() for make in makes])


def in_pairs(weight: Tensor, columns: int) -> Tensor:
    """Rows of every head reordered: those that a rotation mixes, half a head apart, become neighbours."""
    halves = weight.reshape(-1, 2, columns // 2, *weight.shape[1:])
    return halves.transpose(1, 2).reshape(weight.shape)


def rope_factors(model: PreTrainedModel, widths: FileWidths) -> Tensor | None:
    """By what the plain frequencies are divided, pair by pair; None where they are plain, or scaled alike."""
    rope = rope_of(model.config)
    if widths.family.positions is not None or rope["rope_type"] != "llama3":
        return None
    base: Any = model.base_model
    exponents = torch.arange(0, widths.head_dim, 2, dtype=torch.float64) / widths.head_dim
    plain = float(rope["rope_theta"]) ** -exponents
    scaled: Tensor = base.rotary_emb.inv_freq
    return (plain / scaled.double().cpu()).float()
