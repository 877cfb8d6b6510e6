"""Encoders: one entry each."""

from dataclasses import replace

from statprune.anatomy.parts import Architecture, Attention, Context, FeedForward, Widths

BERT = Architecture(
    model_types=("bert",),
    kind="encoder",
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
    feed_forward=FeedForward(up="intermediate.dense", down="output.dense", residual="intermediate"),
    widths=Widths(heads="num_attention_heads", neurons="intermediate_size"),
    refuse={
        "is_decoder": "it is set up as a decoder, possibly with cross-attention",
        "chunk_size_feed_forward": "it runs its feed-forward in pieces; 0 gives the same result",
    },
)

# Positions start at the padding id plus one, so that many of them never hold a token.
ROBERTA = replace(BERT, model_types=("roberta",), context=Context(reserved=2))

DISTILBERT = Architecture(
    model_types=("distilbert",),
    kind="encoder",
    blocks="transformer.layer",
    attention=Attention(
        query="attention.q_lin",
        key="attention.k_lin",
        value="attention.v_lin",
        out="attention.out_lin",
        follows={"attention.n_heads": "heads", "attention.dim": "head_columns"},
    ),
    feed_forward=FeedForward(up="ffn.lin1", down="ffn.lin2", residual="ffn"),
    widths=Widths(heads="n_heads", neurons="hidden_dim"),
    refuse={"chunk_size_feed_forward": BERT.refuse["chunk_size_feed_forward"]},
)

ENCODERS = (BERT, ROBERTA, DISTILBERT)
