"""`evaluate`: what a model's quality is, by the protocol that fits its head."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from statprune.checkpoint.load import require_finite
from statprune.engine.progress import Facts, Progress, no_progress
from statprune.errors import DataError, ModelError
from statprune.evaluation.devices import evaluating
from statprune.evaluation.perplexity import MaskedLoss, Perplexity, masked_lm_loss, perplexity
from statprune.inputs import open_model, records_of, sequence_length


def evaluate(  # noqa: PLR0913 - the options of the command of this name
    model: PreTrainedModel | str | Path,
    *,
    data: Any,
    seq_len: int | None = None,
    tokenizer: Any = None,
    text_column: str | tuple[str, str] | None = None,
    dtype: str = "auto",
    device: str = "auto",
    max_tokens: int | None = None,
    seed: int = 0,
    progress: Progress = no_progress,
) -> Perplexity | MaskedLoss:
    """Perplexity of a causal model, or the loss at masked tokens of an encoder with a masked-language head.

    Args:
        model: a Hugging Face model, pruned or not, its folder, or its name on the hub.
        data: as for `compress`, without batches; the split "test" is taken where the source names none.
        seq_len: tokens per window (perplexity) or at most per record (masked loss); by default the smaller of
            2048 and the model's context.
        tokenizer: takes precedence over the model's own.
        text_column: the column that holds the text.
        dtype: what weights are loaded as; "auto" keeps the checkpoint's.
        device: where to compute; "auto" takes a GPU where there is one.
        max_tokens: read no more than this many tokens.
        seed: draws which tokens are masked.
        progress: called after every batch with ("evaluate", windows or records done, all of them).

    Raises:
        ModelError: the model has neither head.
        NonFiniteError: a weight is NaN or infinite.
        InputError: something given cannot be used.
    """
    if max_tokens is not None and max_tokens < 1:
        raise DataError(f"max_tokens is {max_tokens}; give at least 1, or None for all.")
    opened = open_model(model, tokenizer, dtype=dtype, device=device)
    name = type(opened.model).__name__
    masked = "ForMaskedLM" in name
    if opened.model.config.is_encoder_decoder:
        raise ModelError(
            f"{opened.name}: {name} is an encoder with a decoder; perplexity here is that of a text alone. "
            f"Evaluate it on its own task."
        )
    if not masked and not opened.model.can_generate():
        raise ModelError(
            f"{opened.name}: {name} has no language-modelling head, so it has no perplexity. "
            f"Evaluate it on its own task."
        )
    require_finite(opened.model)
    length = sequence_length(opened, seq_len)
    records = records_of(data, opened, text_column, "test")

    def told(done: int, samples: int) -> None:
        progress("evaluate", done, samples, Facts(ahead=()))

    rest: dict[str, Any] = {
        "seq_len": length,
        "max_tokens": max_tokens,
        "on_progress": told,
    }
    with evaluating(opened.model):
        if not masked:
            return perplexity(opened.model, opened.tokenizer, records, **rest)
        generator = torch.Generator().manual_seed(seed)
        loss = masked_lm_loss(
            opened.model,
            opened.tokenizer,
            records,
            generator=generator,
            **rest,
        )
        return replace(loss, protocol=loss.protocol | {"seed": seed})
