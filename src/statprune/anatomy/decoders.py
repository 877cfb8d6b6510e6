"""Decoders: one entry each."""

from dataclasses import replace

from statprune.anatomy.parts import (
    BLOCK,
    Architecture,
    Attention,
    Context,
    Experts,
    FeedForward,
    Stack,
    Unprunable,
    Widths,
)

_ATTENTION = Attention(
    query="self_attn.q_proj", key="self_attn.k_proj", value="self_attn.v_proj", out="self_attn.o_proj"
)
_FEED_FORWARD = FeedForward(
    gate="mlp.gate_proj",
    up="mlp.up_proj",
    down="mlp.down_proj",
    activation="mlp.act_fn",
    residual=("post_attention_layernorm",),
)
_LLAMA = Stack(
    blocks="layers",
    attention=_ATTENTION,
    feed_forward=_FEED_FORWARD,
    widths=Widths(
        heads="num_attention_heads",
        kv_heads="num_key_value_heads",
        head_dim="head_dim",
        neurons="intermediate_size",
    ),
)

LLAMA = Architecture(
    model_types=("llama", "mistral", "qwen2", "qwen3"),
    kind="decoder",
    stacks=(_LLAMA,),
    reencode={"llama": "mistral"},
)

# Norms lie between what attention and perceptron return and where it is added.
GEMMA = Architecture(
    model_types=("gemma2", "gemma3_text"),
    kind="decoder",
    stacks=(
        replace(
            _LLAMA,
            attention=replace(_ATTENTION, residual=()),
            feed_forward=replace(_FEED_FORWARD, residual=()),
        ),
    ),
)

PHI3 = Architecture(
    model_types=("phi3",),
    kind="decoder",
    stacks=(
        replace(
            _LLAMA,
            attention=Attention(
                query="self_attn.qkv_proj",
                key="self_attn.qkv_proj",
                value="self_attn.qkv_proj",
                out="self_attn.o_proj",
                fused="concatenated",
                follows={
                    "self_attn.config.num_attention_heads": "heads",
                    "self_attn.num_key_value_heads": "kv_heads",
                },
            ),
            feed_forward=FeedForward(
                gate="mlp.gate_up_proj",
                up="mlp.gate_up_proj",
                down="mlp.down_proj",
                activation="mlp.activation_fn",
                residual=("post_attention_layernorm",),
            ),
        ),
    ),
)

OPT = Architecture(
    model_types=("opt",),
    kind="decoder",
    stacks=(
        Stack(
            blocks="decoder.layers",
            attention=Attention(
                query="self_attn.q_proj",
                key="self_attn.k_proj",
                value="self_attn.v_proj",
                out="self_attn.out_proj",
                follows={"self_attn.num_heads": "heads", "self_attn.embed_dim": "head_columns"},
            ),
            feed_forward=FeedForward(
                up="fc1",
                down="fc2",
                activation="activation_fn",
                residual=("final_layer_norm",),
                residual_unless=("do_layer_norm_before", ("fc1",)),
            ),
            widths=Widths(heads="num_attention_heads", neurons="ffn_dim"),
        ),
    ),
)

GPT2 = Architecture(
    model_types=("gpt2",),
    kind="decoder",
    stacks=(
        Stack(
            blocks="h",
            attention=Attention(
                query="attn.c_attn",
                key="attn.c_attn",
                value="attn.c_attn",
                out="attn.c_proj",
                fused="concatenated",
                follows={
                    "attn.num_heads": "heads",
                    "attn.split_size": "head_columns",
                    "attn.embed_dim": "head_columns",
                },
            ),
            feed_forward=FeedForward(
                up="mlp.c_fc", down="mlp.c_proj", activation="mlp.act", residual=("ln_2",)
            ),
            widths=Widths(heads="n_head", neurons="n_inner"),
        ),
    ),
    context=Context("n_positions"),
    refuse={"add_cross_attention": "its blocks hold cross-attention, which has no site yet"},
)

GPT_NEO = Architecture(
    model_types=("gpt_neo",),
    kind="decoder",
    stacks=(
        Stack(
            blocks="h",
            attention=Attention(
                query="attn.attention.q_proj",
                key="attn.attention.k_proj",
                value="attn.attention.v_proj",
                out="attn.attention.out_proj",
                follows={"attn.attention.num_heads": "heads", "attn.attention.embed_dim": "head_columns"},
            ),
            feed_forward=FeedForward(
                up="mlp.c_fc", down="mlp.c_proj", activation="mlp.act", residual=("ln_2",)
            ),
            widths=Widths(heads="num_heads", neurons="intermediate_size"),
            extras=1,
        ),
    ),
)

# Attention and perceptron read the same hidden state, and both are added to it, unless the config says else.
GPT_NEOX = Architecture(
    model_types=("gpt_neox",),
    kind="decoder",
    stacks=(
        Stack(
            blocks="layers",
            attention=Attention(
                query="attention.query_key_value",
                key="attention.query_key_value",
                value="attention.query_key_value",
                out="attention.dense",
                fused="interleaved",
            ),
            feed_forward=FeedForward(
                up="mlp.dense_h_to_4h",
                down="mlp.dense_4h_to_h",
                activation="mlp.act",
                residual=(BLOCK, "post_attention_dropout"),
                residual_unless=("use_parallel_residual", ("post_attention_layernorm",)),
            ),
            widths=Widths(heads="num_attention_heads", neurons="intermediate_size"),
        ),
    ),
)

_EXPERTS = Experts(
    path="mlp.experts",
    residual=("post_attention_layernorm",),
    follows={"mlp.experts.intermediate_dim": "neurons"},
)
_ROUTER = Unprunable("it picks the experts of a token: its outputs are experts, not units")

MIXTRAL = Architecture(
    model_types=("mixtral",),
    kind="decoder",
    stacks=(
        replace(
            _LLAMA,
            feed_forward=None,
            experts=_EXPERTS,
            router=_ROUTER,
            widths=replace(_LLAMA.widths, experts="intermediate_size"),
        ),
    ),
)

# Some blocks may have an ordinary perceptron instead of experts.
_QWEN_MOE = replace(
    _LLAMA,
    experts=_EXPERTS,
    router=_ROUTER,
    widths=replace(_LLAMA.widths, experts="moe_intermediate_size"),
)

# A gate scales the shared expert's output for each token before it is added.
QWEN2_MOE = Architecture(
    model_types=("qwen2_moe",),
    kind="decoder",
    stacks=(
        replace(
            _QWEN_MOE,
            shared_expert=FeedForward(
                gate="mlp.shared_expert.gate_proj",
                up="mlp.shared_expert.up_proj",
                down="mlp.shared_expert.down_proj",
                activation="mlp.shared_expert.act_fn",
                residual=(),
            ),
            widths=replace(_QWEN_MOE.widths, shared_expert="shared_expert_intermediate_size"),
        ),
    ),
)

QWEN3_MOE = Architecture(model_types=("qwen3_moe",), kind="decoder", stacks=(_QWEN_MOE,))

DECODERS = (LLAMA, MIXTRAL, QWEN2_MOE, QWEN3_MOE, GEMMA, PHI3, OPT, GPT2, GPT_NEO, GPT_NEOX)
