"""Families as data: what llama.cpp's architectures compute, and how each model type is written to them.

A family that is not here is added as a record; nothing else names one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Rope = Literal["default", "linear", "llama3"]
QKV = ("attn_q", "attn_k", "attn_v")
LINEARS = (*QKV, "attn_output", "ffn_gate", "ffn_up", "ffn_down")
NORMS = ("attn_norm", "ffn_norm", "output_norm")
SILU = ("silu", "swish")
GELU_TANH = ("gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_python_tanh")
GELU = (*GELU_TANH, "gelu", "gelu_python")
"""What llama.cpp computes by its tanh form, on the CPU from a table of f16 for input and output."""


@dataclass(frozen=True)
class FileArchitecture:
    """An architecture of llama.cpp: which widths and options its graph reads."""

    name: str
    biases: tuple[str, ...] = ()
    """Tensors that may have one; any other would be dropped in silence."""
    needed_biases: tuple[str, ...] = ()
    """Tensors that must have one: zeros, where the model has none."""
    per_layer: bool = False
    """Whether every block may have its own widths."""
    whole: bool = False
    """Whether it takes the hidden size for heads * columns."""
    ropes: tuple[Rope, ...] = ("default", "linear")
    pairs: bool = False
    """Whether it rotates neighbouring columns; the others, as transformers, those half a head apart."""
    partial: bool = False
    """Whether it may rotate a part of each head."""
    output: Literal["optional", "needed", "tied"] = "optional"
    """Its output matrix: the embedding where there is none, always its own, or always the embedding."""
    fused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Tensors that hold others, their rows one after the other."""


@dataclass(frozen=True)
class Family:
    """Model types of transformers that are written in the same way.

    `names` maps modules of a block, or parameters of one that holds several, to tensors: two where it holds
    gate and up, three where it holds query, key and value.
    """

    model_types: tuple[str, ...]
    architectures: tuple[FileArchitecture, ...]
    """The first that can say a model's widths is taken."""
    names: Mapping[str, str | tuple[str, ...]]
    keys: Mapping[str, str]
    """Config attribute -> the method of gguf's writer that says it."""
    optional_keys: tuple[str, ...] = ()
    """Those of them that may be None: not said."""
    requires: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """Config attribute -> the values with which the graph computes what the model does."""
    activation: tuple[str, tuple[str, ...]] = ("hidden_act", SILU)
    final_norm: str = "norm"
    positions: str | None = None
    """The module of learned positions; without one, positions are rotations."""
    norm_offset: float = 0.0
    """What the model adds to the weight of a norm."""
    windows: Literal["none", "any", "some"] = "none"
    """How many blocks may have a sliding window; "some" means one at least."""
    query_scale: tuple[str, int] | None = None
    """The tensor that takes up the difference between `query_pre_attn_scalar` and what llama.cpp divides by:
    columns per head, but hidden size / heads in models of so many blocks."""


_LLAMA = FileArchitecture("llama", biases=LINEARS, ropes=("default", "linear", "llama3"), pairs=True)
_DECI = FileArchitecture(
    "deci", biases=LINEARS, ropes=("default", "linear", "llama3"), pairs=True, per_layer=True
)
_QWEN2 = FileArchitecture("qwen2", biases=QKV, whole=True)
_QWEN3 = FileArchitecture("qwen3")
_OPENELM = FileArchitecture("openelm", per_layer=True, output="tied", fused={"attn_qkv": QKV})
_QWEN2_MOE = FileArchitecture("qwen2moe", biases=QKV, whole=True, output="needed")
_QWEN3_MOE = FileArchitecture("qwen3moe")
_GEMMA2 = FileArchitecture("gemma2", output="tied")
_GEMMA3 = FileArchitecture("gemma3")
_PHI3 = FileArchitecture(
    "phi3", whole=True, partial=True, fused={"attn_qkv": QKV, "ffn_up": ("ffn_gate", "ffn_up")}
)
_GPT: dict[str, Any] = {"biases": (*LINEARS, *NORMS), "whole": True, "fused": {"attn_qkv": QKV}}
_GPT2 = FileArchitecture("gpt2", ropes=(), **_GPT)
_GPT_NEOX = FileArchitecture(
    "gptneox", partial=True, output="needed", needed_biases=("attn_qkv", "attn_output"), **_GPT
)

_ATTENTION: Mapping[str, str | tuple[str, ...]] = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
}
_BLOCK = {**_ATTENTION, "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
_EXPERTS = {
    **_ATTENTION,
    "mlp.gate": "ffn_gate_inp",
    "mlp.experts.gate_up_proj": ("ffn_gate_exps", "ffn_up_exps"),
    "mlp.experts.down_proj": "ffn_down_exps",
    "mlp.shared_expert.gate_proj": "ffn_gate_shexp",
    "mlp.shared_expert.up_proj": "ffn_up_shexp",
    "mlp.shared_expert.down_proj": "ffn_down_shexp",
    "mlp.shared_expert_gate": "ffn_gate_inp_shexp",
}
_RMS = {"rms_norm_eps": "add_layer_norm_rms_eps"}
_EXPERT_KEYS = {**_RMS, "num_experts": "add_expert_count", "num_experts_per_tok": "add_expert_used_count"}
_GEMMA: dict[str, Any] = {
    "names": {
        **_BLOCK,
        "post_attention_layernorm": "post_attention_norm",
        "pre_feedforward_layernorm": "ffn_norm",
        "post_feedforward_layernorm": "post_ffw_norm",
    },
    "activation": ("hidden_activation", GELU),
    "norm_offset": 1.0,
}
_CAUSAL = {"use_bidirectional_attention": (False, None)}

FAMILIES = (
    Family(("llama", "mistral"), (_LLAMA, _DECI), _BLOCK, _RMS),
    Family(("qwen2",), (_QWEN2, _DECI), _BLOCK, _RMS),
    Family(("qwen3",), (_QWEN3, _OPENELM), _BLOCK, _RMS),
    Family(("mixtral",), (_LLAMA,), _EXPERTS, _EXPERT_KEYS),
    Family(
        ("qwen2_moe",),
        (_QWEN2_MOE,),
        _EXPERTS,
        _EXPERT_KEYS,
        requires={"norm_topk_prob": (False,)},
    ),
    Family(
        ("qwen3_moe",),
        (_QWEN3_MOE,),
        _EXPERTS,
        _EXPERT_KEYS,
        requires={"norm_topk_prob": (True,)},
    ),
    Family(
        ("gemma2",),
        (_GEMMA2,),
        keys=_RMS
        | {"attn_logit_softcapping": "add_attn_logit_softcapping"}
        | {"final_logit_softcapping": "add_final_logit_softcapping"},
        requires=_CAUSAL,
        windows="some",
        query_scale=("attn_q", 46),
        **_GEMMA,
    ),
    Family(
        ("gemma3_text",),
        (_GEMMA3,),
        keys={**_RMS, "final_logit_softcapping": "add_final_logit_softcapping"},
        optional_keys=("final_logit_softcapping",),
        requires={**_CAUSAL, "attn_logit_softcapping": (None,)},
        windows="any",
        query_scale=("attn_q_norm", 62),
        **_GEMMA,
    ),
    Family(
        ("phi3",),
        (_PHI3, _DECI),
        {**_BLOCK, "self_attn.qkv_proj": QKV, "mlp.gate_up_proj": ("ffn_gate", "ffn_up")},
        _RMS,
    ),
    Family(
        ("gpt2",),
        (_GPT2,),
        {
            "ln_1": "attn_norm",
            "attn.c_attn": QKV,
            "attn.c_proj": "attn_output",
            "ln_2": "ffn_norm",
            "mlp.c_fc": "ffn_up",
            "mlp.c_proj": "ffn_down",
        },
        {"layer_norm_epsilon": "add_layer_norm_eps"},
        requires={"scale_attn_weights": (True,), "scale_attn_by_inverse_layer_idx": (False,)},
        activation=("activation_function", GELU),
        final_norm="ln_f",
        positions="wpe",
    ),
    Family(
        ("gpt_neox",),
        (_GPT_NEOX,),
        {
            "input_layernorm": "attn_norm",
            "attention.query_key_value": QKV,
            "attention.dense": "attn_output",
            "post_attention_layernorm": "ffn_norm",
            "mlp.dense_h_to_4h": "ffn_up",
            "mlp.dense_4h_to_h": "ffn_down",
        },
        {"layer_norm_eps": "add_layer_norm_eps", "use_parallel_residual": "add_parallel_residual"},
        activation=("hidden_act", GELU),
        final_norm="final_layer_norm",
    ),
)
MODEL_TYPES = tuple(name for family in FAMILIES for name in family.model_types)


def family_of(model_type: str) -> Family | None:
    """The record that lists this model type, or None."""
    return next((family for family in FAMILIES if model_type in family.model_types), None)
