"""What a GGUF file says of a model beside its tensors and its tokenizer."""

from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from statprune.export.gguf_options import SLIDING, is_nested, rope_of
from statprune.export.gguf_widths import FileWidths


def write_config(writer: Any, model: PreTrainedModel, widths: FileWidths) -> None:
    """Give all that llama.cpp reads before the tensors to `writer`, a GGUFWriter."""
    config: Any = model.config

    def shared(values: tuple[int, ...]) -> int | list[int]:
        return list(values) if widths.architecture.per_layer else values[0]

    writer.add_name(Path(config._name_or_path or widths.architecture.name).name)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(widths.hidden)
    writer.add_block_count(len(widths.heads))
    writer.add_feed_forward_length(shared(widths.neurons))
    writer.add_head_count(shared(widths.heads))
    writer.add_head_count_kv(shared(widths.kv_heads))
    # Where they are not said, llama.cpp takes hidden size / heads.
    writer.add_key_length(widths.head_dim)
    writer.add_value_length(widths.head_dim)
    for name, method in widths.family.keys.items():
        if getattr(config, name) is not None:
            getattr(writer, method)(getattr(config, name))
    if widths.stack.experts is not None:
        writer.add_expert_feed_forward_length(widths.neurons[0])
    if widths.shared[0]:
        writer.add_expert_shared_feed_forward_length(widths.shared[0])
    if widths.family.positions is None:
        _write_rope(writer, config, widths)
    if widths.family.windows != "none":
        _write_windows(writer, config)
    writer.add_vocab_size(model.get_input_embeddings().weight.shape[0])


def _write_rope(writer: Any, config: Any, widths: FileWidths) -> None:
    from gguf import RopeScalingType  # noqa: PLC0415 - an optional library

    rope = rope_of(config)
    writer.add_rope_dimension_count(int(widths.head_dim * rope["partial_rotary_factor"]))
    writer.add_rope_freq_base(float(rope["rope_theta"]))
    if is_nested(config):
        base = float(rope_of(config, SLIDING)["rope_theta"])
        writer.add_float32(f"{widths.architecture.name}.rope.freq_base_swa", base)
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(RopeScalingType("linear"))
        writer.add_rope_scaling_factor(float(rope["factor"]))


def _write_windows(writer: Any, config: Any) -> None:
    slides = [kind == SLIDING for kind in config.layer_types]
    if any(slides):
        writer.add_sliding_window(config.sliding_window)
    writer.add_sliding_window_pattern(slides)
