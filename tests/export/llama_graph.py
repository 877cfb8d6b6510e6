"""What llama.cpp computes with a GGUF file, written down again from its graphs: from the file alone."""

from pathlib import Path
from typing import Any

import gguf
import torch
from torch import Tensor
from torch.nn import functional

PAIRS = ("llama", "deci")
"""Architectures that rotate neighbouring columns; the others rotate those half a head apart."""
GEMMA = {"gemma2": 46, "gemma3": 62}
"""They scale embeddings, and scores by hidden size / heads where they have so many blocks."""
GPT = ("gpt2", "gptneox")
"""Norms with means and biases, no gates."""
UNNORMALISED = ("qwen2moe",)
"""The weights of the experts picked do not add up to 1."""


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

    def of(self, key: str, otherwise: Any = None) -> Any:
        name = f"{self.architecture}.{key}"
        return self.fields[name] if otherwise is None else self.fields.get(name, otherwise)

    def widths(self, key: str) -> list[int]:
        given = self.of(key)
        return list(given) if isinstance(given, list) else [given] * self.of("block_count")

    def logits(self, ids: list[int]) -> Tensor:
        weights = self.weights
        stream = weights["token_embd.weight"][torch.tensor(ids)].double()
        if self.architecture in GEMMA:
            stream = stream * self.of("embedding_length") ** 0.5
        if self.architecture == "gpt2":
            stream = stream + weights["position_embd.weight"][: len(ids)].double()
        for index in range(self.of("block_count")):
            stream = self._block(index, stream)
        stream = self._norm(stream, "output_norm")
        head = weights.get("output.weight", weights["token_embd.weight"])
        return self._capped(stream @ head.double().T, self.of("final_logit_softcapping", 0.0))

    def _block(self, index: int, stream: Tensor) -> Tensor:
        heads = self.widths("attention.head_count")[index]
        neurons = self.widths("feed_forward_length")[index]
        assert neurons > 0, "deci would forget the attention of this block"
        assert self.widths("attention.head_count")[0] > 0, "the size of every head would be 0"
        read = stream
        if heads:
            attended = self._attention(index, self._norm(stream, f"blk.{index}.attn_norm"), heads)
            stream = stream + self._norm_if_there(attended, f"blk.{index}.post_attention_norm")
        parallel = self.of("use_parallel_residual", 0)
        inner = self._norm(read if parallel else stream, f"blk.{index}.ffn_norm")
        made = self._experts(index, inner) if self.of("expert_count", 0) else self._perceptron(index, inner)
        return stream + self._norm_if_there(made, f"blk.{index}.post_ffw_norm")

    def _perceptron(self, index: int, inner: Tensor, suffix: str = "") -> Tensor:
        up = self._linear(inner, f"blk.{index}.ffn_up{suffix}")
        if self.architecture in GPT:
            return self._linear(functional.gelu(up, approximate="tanh"), f"blk.{index}.ffn_down")
        if self.architecture == "phi3":
            gate, up = up.chunk(2, -1)
        else:
            gate = self._linear(inner, f"blk.{index}.ffn_gate{suffix}")
        if self.architecture in GEMMA:
            acted = functional.gelu(gate, approximate="tanh")
        else:
            acted = functional.silu(gate)
        return self._linear(acted * up, f"blk.{index}.ffn_down{suffix}")

    def _experts(self, index: int, inner: Tensor) -> Tensor:
        shares = self._linear(inner, f"blk.{index}.ffn_gate_inp").softmax(-1)
        weights, picked = shares.topk(self.of("expert_used_count"), -1)
        if self.architecture not in UNNORMALISED:
            weights = weights / weights.sum(-1, keepdim=True)
        gate, up, down = (
            self.weights[f"blk.{index}.ffn_{part}_exps.weight"].double()[picked]
            for part in ("gate", "up", "down")
        )
        acted = functional.silu(torch.einsum("tenh,th->ten", gate, inner))
        neurons = acted * torch.einsum("tenh,th->ten", up, inner)
        made = torch.einsum("tehn,ten,te->th", down, neurons, weights)
        if f"blk.{index}.ffn_gate_inp_shexp.weight" in self.weights:
            opened = (inner @ self.weights[f"blk.{index}.ffn_gate_inp_shexp.weight"].double()).sigmoid()
            made = made + opened[:, None] * self._perceptron(index, inner, "_shexp")
        return made

    def _attention(self, index: int, inner: Tensor, heads: int) -> Tensor:
        kv_heads, columns = self.widths("attention.head_count_kv")[index], self.of("attention.key_length")
        names = [f"blk.{index}.attn_{part}" for part in "qkv"]
        if f"blk.{index}.attn_qkv.weight" in self.weights:
            sizes = [heads * columns, kv_heads * columns, kv_heads * columns]
            query, key, value = self._linear(inner, f"blk.{index}.attn_qkv").split(sizes, -1)
        else:
            query, key, value = (self._linear(inner, name) for name in names)
        query, key, value = (part.reshape(len(inner), -1, columns) for part in (query, key, value))
        query, key = (
            self._norm_if_there(part, f"{name}_norm") for part, name in zip((query, key), names, strict=False)
        )
        slides = bool(self.architecture in GEMMA and self.of("attention.sliding_window_pattern")[index])
        if self.architecture != "gpt2":
            query, key = self._rotated(query, slides), self._rotated(key, slides)
        groups = heads // kv_heads
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        large = self.of("block_count") == GEMMA.get(self.architecture)
        scale = (self.of("embedding_length") // heads if large else columns) ** -0.5
        scores = torch.einsum("qhc,khc->hqk", query, key) * scale
        scores = self._capped(scores, self.of("attn_logit_softcapping", 0.0))
        seen = torch.ones_like(scores[0]).tril()
        if slides:
            seen = seen.triu(1 - self.of("attention.sliding_window"))
        mixed = torch.einsum("hqk,khc->qhc", scores.masked_fill(seen == 0, float("-inf")).softmax(-1), value)
        return self._linear(mixed.reshape(len(inner), -1), f"blk.{index}.attn_output")

    def _capped(self, values: Tensor, cap: float) -> Tensor:
        return (values / cap).tanh() * cap if cap else values

    def _rotated(self, heads: Tensor, slides: bool) -> Tensor:
        columns = self.of("rope.dimension_count")
        base, factor = self.of("rope.freq_base"), self.of("rope.scaling.factor", 1.0)
        if slides and self.architecture == "gemma3":
            base, factor = self.of("rope.freq_base_swa"), 1.0
        frequencies = base ** (-torch.arange(0, columns, 2).double() / columns) / factor
        if "rope_freqs.weight" in self.weights:
            frequencies = frequencies / self.weights["rope_freqs.weight"].double()
        angles = torch.arange(len(heads))[:, None, None] * frequencies
        heads, still = heads[..., :columns], heads[..., columns:]
        half = columns // 2
        pairs = self.architecture in PAIRS
        first = heads[..., 0::2] if pairs else heads[..., :half]
        second = heads[..., 1::2] if pairs else heads[..., half:]
        turned = (first * angles.cos() - second * angles.sin(), first * angles.sin() + second * angles.cos())
        if pairs:
            return torch.stack(turned, -1).flatten(-2)
        return torch.cat((*turned, still), -1)

    def _linear(self, inputs: Tensor, name: str) -> Tensor:
        outputs = inputs @ self.weights[f"{name}.weight"].double().T
        bias = self.weights.get(f"{name}.bias")
        return outputs if bias is None else outputs + bias.double()

    def _norm_if_there(self, inputs: Tensor, name: str) -> Tensor:
        return self._norm(inputs, name) if f"{name}.weight" in self.weights else inputs

    def _norm(self, inputs: Tensor, name: str) -> Tensor:
        weight = self.weights[f"{name}.weight"].double()
        if self.architecture in GPT:
            bias = self.weights[f"{name}.bias"].double()
            return functional.layer_norm(
                inputs, weight.shape, weight, bias, self.of("attention.layer_norm_epsilon")
            )
        epsilon = self.of("attention.layer_norm_rms_epsilon")
        return inputs * (inputs.square().mean(-1, keepdim=True) + epsilon).rsqrt() * weight
