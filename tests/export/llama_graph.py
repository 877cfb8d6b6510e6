"""What llama.cpp computes with a GGUF file, written down again from its graphs: from the file alone."""

from pathlib import Path
from typing import Any

import gguf
import torch
from torch import Tensor

PAIRS = ("llama", "deci")
"""Architectures that rotate neighbouring columns; the others rotate those half a head apart."""


class LlamaGraph:
    """A GGUF file, opened; `logits` gives those of every position."""

    def __init__(self, path: Path) -> None:
        reader = gguf.GGUFReader(path)
        self.fields = {name: field.contents() for name, field in reader.fields.items()}
        self.types = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
        self.weights = {
            tensor.name: torch.from_numpy(gguf.quants.dequantize(tensor.data, tensor.tensor_type).copy())
            for tensor in reader.tensors
        }
        self.architecture = self.fields["general.architecture"]

    def of(self, key: str) -> Any:
        return self.fields[f"{self.architecture}.{key}"]

    def widths(self, key: str) -> list[int]:
        given = self.of(key)
        return list(given) if isinstance(given, list) else [given] * self.of("block_count")

    def logits(self, ids: list[int]) -> Tensor:
        weights = self.weights
        stream = weights["token_embd.weight"][torch.tensor(ids)].double()
        for index in range(self.of("block_count")):
            stream = self._block(index, stream)
        stream = self._norm(stream, "output_norm")
        return stream @ weights.get("output.weight", weights["token_embd.weight"]).double().T

    def _block(self, index: int, stream: Tensor) -> Tensor:
        heads = self.widths("attention.head_count")[index]
        neurons = self.widths("feed_forward_length")[index]
        assert neurons > 0, "deci would forget the attention of this block"
        assert self.widths("attention.head_count")[0] > 0, "the size of every head would be 0"
        if heads:
            attended = self._attention(index, self._norm(stream, f"blk.{index}.attn_norm"), heads)
            stream = stream + attended
        inner = self._norm(stream, f"blk.{index}.ffn_norm")
        gate = self._linear(inner, f"blk.{index}.ffn_gate")
        up = self._linear(inner, f"blk.{index}.ffn_up")
        return stream + self._linear(torch.nn.functional.silu(gate) * up, f"blk.{index}.ffn_down")

    def _attention(self, index: int, inner: Tensor, heads: int) -> Tensor:
        kv_heads, columns = self.widths("attention.head_count_kv")[index], self.of("attention.key_length")
        names = [f"blk.{index}.attn_{part}" for part in "qkv"]
        if self.architecture == "openelm":
            sizes = [heads * columns, kv_heads * columns, kv_heads * columns]
            query, key, value = self._linear(inner, f"blk.{index}.attn_qkv").split(sizes, -1)
        else:
            query, key, value = (self._linear(inner, name) for name in names)
        query, key, value = (part.reshape(len(inner), -1, columns) for part in (query, key, value))
        if f"{names[0]}_norm.weight" in self.weights:
            query, key = self._norm(query, f"{names[0]}_norm"), self._norm(key, f"{names[1]}_norm")
        query, key = self._rotated(query), self._rotated(key)
        groups = heads // kv_heads
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        scores = torch.einsum("qhc,khc->hqk", query, key) / columns**0.5
        scores = scores.masked_fill(torch.ones_like(scores[0]).triu(1).bool(), float("-inf"))
        mixed = torch.einsum("hqk,khc->qhc", scores.softmax(-1), value)
        return self._linear(mixed.reshape(len(inner), -1), f"blk.{index}.attn_output")

    def _rotated(self, heads: Tensor) -> Tensor:
        columns = self.of("rope.dimension_count")
        frequencies = self.of("rope.freq_base") ** (-torch.arange(0, columns, 2).double() / columns)
        frequencies = frequencies / self.fields.get(f"{self.architecture}.rope.scaling.factor", 1.0)
        if "rope_freqs.weight" in self.weights:
            frequencies = frequencies / self.weights["rope_freqs.weight"].double()
        angles = torch.arange(len(heads))[:, None, None] * frequencies
        half = columns // 2
        pairs = self.architecture in PAIRS
        first = heads[..., 0::2] if pairs else heads[..., :half]
        second = heads[..., 1::2] if pairs else heads[..., half:]
        turned = (first * angles.cos() - second * angles.sin(), first * angles.sin() + second * angles.cos())
        return torch.stack(turned, -1).flatten(-2) if pairs else torch.cat(turned, -1)

    def _linear(self, inputs: Tensor, name: str) -> Tensor:
        outputs = inputs @ self.weights[f"{name}.weight"].double().T
        bias = self.weights.get(f"{name}.bias")
        return outputs if bias is None else outputs + bias.double()

    def _norm(self, inputs: Tensor, name: str) -> Tensor:
        epsilon = self.of("attention.layer_norm_rms_epsilon")
        scaled = inputs * (inputs.square().mean(-1, keepdim=True) + epsilon).rsqrt()
        return scaled * self.weights[f"{name}.weight"].double()
