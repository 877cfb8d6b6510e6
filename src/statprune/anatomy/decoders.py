"""Decoders: one entry each."""

from statprune.anatomy.parts import Architecture, Attention, Context, FeedForward, Widths

LLAMA = Architecture(
    model_types=("llama", "mistral", "qwen2", "qwen3"),
    kind="decoder",
    blocks="layers",
    attention=Attention(
        query="self_attn.q_proj",
        key="self_attn.k_proj",
        value="self_attn.v_proj",
        out="self_attn.o_proj",
    ),
    feed_forward=FeedForward(
        gate="mlp.gate_proj", up="mlp.up_proj", down="mlp.down_proj", residual="post_attention_layernorm"
    ),
    widths=Widths(
        heads="num_attention_heads",
        kv_heads="num_key_value_heads",
        head_dim="head_dim",
        neurons="intermediate_size",
    ),
    reencode={"llama": "mistral"},
)

OPT = Architecture(
    model_types=("opt",),
    kind="decoder",
    blocks="decoder.layers",
    attention=Attention(
        query="self_attn.q_proj",
        key="self_attn.k_proj",
        value="self_attn.v_proj",
        out="self_attn.out_proj",
        follows={"self_attn.num_heads": "heads", "self_attn.embed_dim": "head_columns"},
    ),
    feed_forward=FeedForward(
        up="fc1", down="fc2", residual="final_layer_norm", residual_unless=("do_layer_norm_before", "fc1")
    ),
    widths=Widths(heads="num_attention_heads", neurons="ffn_dim"),
)

GPT2 = Architecture(
    model_types=("gpt2",),
    kind="decoder",
    blocks="h",
    attention=Attention(
        query="attn.c_attn",
        key="attn.c_attn",
        value="attn.c_attn",
        out="attn.c_proj",
        fused=True,
        follows={
            "attn.num_heads": "heads",
            "attn.split_size": "head_columns",
            "attn.embed_dim": "head_columns",
        },
    ),
    feed_forward=FeedForward(up="mlp.c_fc", down="mlp.c_proj", residual="ln_2"),
    widths=Widths(heads="n_head", neurons="n_inner"),
    context=Context("n_positions"),
    refuse={"add_cross_attention": "its blocks hold cross-attention, which has no site yet"},
)

DECODERS = (LLAMA, OPT, GPT2)
