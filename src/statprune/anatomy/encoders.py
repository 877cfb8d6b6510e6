"""Encoders: one entry each."""

from dataclasses import replace

from statprune.anatomy.parts import (
    Architecture,
    Attention,
    Context,
    FeedForward,
    Stack,
    Unprunable,
    Widths,
)

_IN_PIECES = {"chunk_size_feed_forward": "it runs its feed-forward in pieces; 0 gives the same result"}

BERT = Architecture(
    model_types=("bert", "electra"),
    kind="encoder",
    stacks=(
        Stack(
            blocks="encoder.layer",
            attention=Attention(
                query="attention.self.query",
                key="attention.self.key",
                value="attention.self.value",
                out="attention.output.dense",
                follows={
                    "attention.self.num_attention_heads": "heads",
                    "attention.self.all_head_size": "head_columns",
                },
            ),
            feed_forward=FeedForward(
                up="intermediate.dense",
                down="output.dense",
                activation="intermediate.intermediate_act_fn",
                residual=("intermediate",),
            ),
            widths=Widths(heads="num_attention_heads", neurons="intermediate_size"),
        ),
    ),
    refuse={"is_decoder": "it is set up as a decoder, possibly with cross-attention", **_IN_PIECES},
)

# Positions start at the padding id plus one, so that many of them never hold a token.
ROBERTA = replace(BERT, model_types=("roberta", "xlm-roberta"), context=Context(reserved=2))

DISTILBERT = Architecture(
    model_types=("distilbert",),
    kind="encoder",
    stacks=(
        Stack(
            blocks="transformer.layer",
            attention=Attention(
                query="attention.q_lin",
                key="attention.k_lin",
                value="attention.v_lin",
                out="attention.out_lin",
                follows={"attention.n_heads": "heads", "attention.dim": "head_columns"},
            ),
            feed_forward=FeedForward(
                up="ffn.lin1", down="ffn.lin2", activation="ffn.activation", residual=("ffn",)
            ),
            widths=Widths(heads="n_heads", neurons="hidden_dim"),
        ),
    ),
    refuse=_IN_PIECES,
)

# Heads also have rows in the projections of relative positions, unless they share those of the tokens.
DEBERTA_V2 = Architecture(
    model_types=("deberta-v2",),
    kind="encoder",
    stacks=(
        Stack(
            blocks="encoder.layer",
            attention=Attention(
                query="attention.self.query_proj",
                key="attention.self.key_proj",
                value="attention.self.value_proj",
                out="attention.output.dense",
                besides=("attention.self.pos_key_proj", "attention.self.pos_query_proj"),
                scored=("attention.self.pos_ebd_size", "attention.self.pos_att_type"),
                follows={
                    "attention.self.num_attention_heads": "heads",
                    "attention.self.all_head_size": "head_columns",
                },
            ),
            feed_forward=FeedForward(
                up="intermediate.dense",
                down="output.dense",
                activation="intermediate.intermediate_act_fn",
                residual=("intermediate",),
            ),
            widths=Widths(heads="num_attention_heads", neurons="intermediate_size"),
            extras=1,
        ),
    ),
    refuse={"conv_kernel_size": "a convolution lies between its first two blocks"},
)

MODERNBERT = Architecture(
    model_types=("modernbert",),
    kind="encoder",
    stacks=(
        Stack(
            blocks="layers",
            attention=Attention(
                query="attn.Wqkv", key="attn.Wqkv", value="attn.Wqkv", out="attn.Wo", fused="concatenated"
            ),
            feed_forward=FeedForward(
                gate="mlp.Wi", up="mlp.Wi", down="mlp.Wo", activation="mlp.act", residual=("mlp_norm",)
            ),
            widths=Widths(heads="num_attention_heads", neurons="intermediate_size"),
        ),
    ),
)

_SHARED = Unprunable("one block is run again and again: what is cut from it is cut from all its uses")

ALBERT = Architecture(
    model_types=("albert",),
    kind="encoder",
    stacks=(
        Stack(
            blocks="encoder.albert_layer_groups",
            attention=_SHARED,
            feed_forward=_SHARED,
            widths=Widths(heads="num_attention_heads", neurons="intermediate_size"),
        ),
    ),
)

VIT = Architecture(
    model_types=("vit",),
    kind="encoder",
    stacks=(
        Stack(
            blocks="layers",
            attention=Attention(
                query="attention.q_proj",
                key="attention.k_proj",
                value="attention.v_proj",
                out="attention.o_proj",
                follows={"attention.num_attention_heads": "heads"},
            ),
            feed_forward=FeedForward(
                up="mlp.fc1",
                down="mlp.fc2",
                activation="mlp.activation_fn",
                residual=("layernorm_after",),
            ),
            widths=Widths(heads="num_attention_heads", head_dim="head_dim", neurons="intermediate_size"),
        ),
    ),
    context=Context(None),
)

ENCODERS = (BERT, ROBERTA, DISTILBERT, DEBERTA_V2, MODERNBERT, ALBERT, VIT)
