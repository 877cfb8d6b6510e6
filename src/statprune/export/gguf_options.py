"""Options of a config that change what is computed: refused where llama.cpp computes something else."""

from typing import Any

from statprune.errors import ModelError
from statprune.export.gguf_families import Family, FileArchitecture

SLIDING = "sliding_attention"
"""What configs call a block whose attention sees a window."""


def refuse_options(config: Any, family: Family) -> None:
    """Raise ModelError where an option asks for what no architecture of the family computes."""
    target = f"llama.cpp's '{family.architectures[0].name}'"
    name, known = family.activation
    given = getattr(config, name)
    if given not in known:
        raise ModelError(
            f"{name} is '{given}'; {target} computes {known[0]} and nothing else. No GGUF can say this model."
        )
    for name, allowed in family.requires.items():
        if getattr(config, name, allowed[0]) not in allowed:
            raise ModelError(
                f"{name} is {getattr(config, name)}; {target} computes as if it were {allowed[0]}, without a "
                f"word. No GGUF can say this model."
            )
    for name in family.keys:
        if getattr(config, name) is None and name not in family.optional_keys:
            raise ModelError(f"{name} is None; {target} needs a number. No GGUF can say this model.")
    if family.windows == "none":
        _refuse_window(config)
    elif family.windows == "some" and not _window_is_used(config):
        raise ModelError(
            f"no block has a sliding window, and {target} aborts without one. In a copy of the folder let "
            f"one of layer_types be '{SLIDING}' and sliding_window {config.max_position_embeddings}: that is "
            f"the same model."
        )


def _refuse_window(config: Any) -> None:
    window = getattr(config, "sliding_window", None)
    if window and window < config.max_position_embeddings and _window_is_used(config):
        raise ModelError(
            f"its attention sees a sliding window of {window} tokens, and the architectures that this export "
            f"writes see all {config.max_position_embeddings}. If you stay within {window} tokens, set "
            f"sliding_window to null and max_position_embeddings to {window} in a copy of the folder: on "
            f"such texts that is the same model."
        )


def _window_is_used(config: Any) -> bool:
    layer_types = getattr(config, "layer_types", None)
    return layer_types is None or SLIDING in layer_types


def refuse_rope(config: Any, family: Family, architecture: FileArchitecture) -> None:
    """Raise ModelError where positions are turned as `architecture` does not turn them."""
    if family.positions is not None:
        return
    rope = rope_of(config)
    kind, share, local = rope["rope_type"], rope["partial_rotary_factor"], rope_of(config, SLIDING)
    if kind not in architecture.ropes:
        within = "If you stay within the original context, give the folder the default rope_parameters."
        raise ModelError(
            f"its positions are scaled by '{kind}' (rope_parameters); written as '{architecture.name}' they "
            f"can be scaled by {', '.join(architecture.ropes)}. "
            f"{within if kind != 'longrope' else 'No other model is near it.'}"
        )
    if share != 1.0 and not architecture.partial:
        raise ModelError(
            f"it rotates {share} of each head (partial_rotary_factor); llama.cpp's '{architecture.name}' "
            f"rotates all. No GGUF can say this model."
        )
    if is_nested(config) and local["rope_type"] != "default":
        raise ModelError(
            f"positions within its sliding window are scaled by '{local['rope_type']}' (rope_parameters); "
            f"llama.cpp's '{architecture.name}' does not scale them. No GGUF can say this model."
        )


def is_nested(config: Any) -> bool:
    """Whether blocks with a sliding window have rope parameters of their own."""
    return SLIDING in (getattr(config, "rope_parameters", None) or {})


def rope_of(config: Any, layer_type: str = "full_attention") -> dict[str, Any]:
    """The config's rope parameters for blocks of one type, with kind, base and rotated share always there."""
    given = dict(getattr(config, "rope_parameters", None) or {})
    given = dict(given.get(layer_type, given))
    kind = given.get("rope_type") or given.get("type") or "default"
    defaults = {"rope_theta": getattr(config, "rope_theta", 10000.0), "partial_rotary_factor": 1.0}
    return {**defaults, **given, "rope_type": kind}
