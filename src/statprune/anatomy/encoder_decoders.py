"""Encoders with a decoder that reads what they return: one entry each."""

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

_BART_ATTENTION = Attention(
    query="self_attn.q_proj",
    key="self_attn.k_proj",
    value="self_attn.v_proj",
    out="self_attn.out_proj",
    follows={"self_attn.num_heads": "heads", "self_attn.embed_dim": "head_columns"},
)
_BART_CROSS = Attention(
    query="encoder_attn.q_proj",
    key="encoder_attn.k_proj",
    value="encoder_attn.v_proj",
    out="encoder_attn.out_proj",
    follows={"encoder_attn.num_heads": "heads", "encoder_attn.embed_dim": "head_columns"},
    residual=("encoder_attn",),
)
_BART_ENCODER = Stack(
    name="encoder",
    blocks="encoder.layers",
    attention=_BART_ATTENTION,
    feed_forward=FeedForward(up="fc1", down="fc2", activation="activation_fn", residual=("fc1",)),
    widths=Widths(heads="encoder_attention_heads", neurons="encoder_ffn_dim"),
)
_BART_DECODER = replace(
    _BART_ENCODER,
    name="decoder",
    blocks="decoder.layers",
    cross_attention=_BART_CROSS,
    widths=Widths(heads="decoder_attention_heads", neurons="decoder_ffn_dim"),
)

BART = Architecture(model_types=("bart",), kind="encoder-decoder", stacks=(_BART_ENCODER, _BART_DECODER))

# Norms come first, where BART's come behind.
_FIRST = FeedForward(up="fc1", down="fc2", activation="activation_fn", residual=("final_layer_norm",))

WHISPER = Architecture(
    model_types=("whisper",),
    kind="encoder-decoder",
    stacks=(
        replace(_BART_ENCODER, feed_forward=_FIRST),
        replace(
            _BART_DECODER,
            feed_forward=_FIRST,
            cross_attention=replace(_BART_CROSS, residual=("encoder_attn_layer_norm",)),
        ),
    ),
    context=Context("max_target_positions"),
)

_SHARED_BIAS = Unprunable(
    "the first block's position bias has a row for every head, and all blocks of the stack add it"
)


def _t5(name: str, part: int, cross: Unprunable | None) -> Stack:
    norm, perceptron = (f"layer.{part}.layer_norm",), f"layer.{part}.DenseReluDense"
    down, activation = f"{perceptron}.wo", f"{perceptron}.act"
    return Stack(
        name=name,
        blocks=f"{name}.block",
        attention=_SHARED_BIAS,
        cross_attention=cross,
        feed_forward=(
            FeedForward(up=f"{perceptron}.wi", down=down, activation=activation, residual=norm),
            FeedForward(
                gate=f"{perceptron}.wi_0",
                up=f"{perceptron}.wi_1",
                down=down,
                activation=activation,
                residual=norm,
            ),
        ),
        widths=Widths(heads="num_heads", head_dim="d_kv", neurons="d_ff"),
        extras=2,
        carried=True,
    )


T5 = Architecture(
    model_types=("t5",),
    kind="encoder-decoder",
    stacks=(_t5("encoder", 1, None), _t5("decoder", 2, _SHARED_BIAS)),
    context=Context(None),
)

ENCODER_DECODERS = (BART, WHISPER, T5)
