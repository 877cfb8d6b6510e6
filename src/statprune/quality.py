"""`evaluate`: what a model's quality is, by the protocol that fits its head."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from statprune.calibration.cells import names_of
from statprune.checkpoint.load import require_finite
from statprune.engine.progress import Facts, Progress, no_progress
from statprune.errors import DataError, ModelError
from statprune.evaluation.batching import positions_of
from statprune.evaluation.devices import evaluating
from statprune.evaluation.heads import require_head
from statprune.evaluation.perplexity import MaskedLoss, Perplexity, masked_lm_loss, perplexity
from statprune.evaluation.scoring import LONGEST_DEFAULT, TaskResult, prepare
from statprune.evaluation.tasks import Task, task_named
from statprune.heap import giving_back
from statprune.inputs import Opened, open_model, records_of, sequence_length


@giving_back
def evaluate(  # noqa: PLR0913 - the options of the command of this name
    model: PreTrainedModel | str | Path,
    *,
    data: Any = None,
    task: str | Task | None = None,
    seq_len: int | None = None,
    tokenizer: Any = None,
    text_column: str | tuple[str, str] | None = None,
    dtype: str = "auto",
    device: str = "auto",
    max_tokens: int | None = None,
    max_examples: int | None = None,
    seed: int = 0,
    progress: Progress = no_progress,
) -> Perplexity | MaskedLoss | TaskResult:
    """How well a model does on a task; without one its perplexity, or an encoder's loss at masked tokens.

    Args:
        model: a Hugging Face model, pruned or not, its folder, or its name on the hub.
        data: as for `compress`, without batches; the split "test" is taken where the source names none. Of a
            task a SOURCE or records with its columns; None for the task's own data on the hub.
        task: an entry of docs/evaluation.md by its name, or a `Task` of your own.
        seq_len: tokens per window (perplexity) or at most per record; by default the task's, else 2048,
            or the model's context where that is smaller.
        tokenizer: takes precedence over the model's own.
        text_column: the column that holds the text; of a task with two, both.
        dtype: what weights are loaded as; "auto" keeps the checkpoint's.
        device: where to compute; "auto" takes a GPU where there is one.
        max_tokens: without a task: read no more than this many tokens.
        max_examples: of a task: ask no more than these, drawn by the seed; of a text the first windows.
        seed: draws which tokens are masked, or which examples are asked.
        progress: called after every batch with ("evaluate", windows or records done, all of them).

    Raises:
        ModelError: the model has neither head, or not the task's head and labels.
        NonFiniteError: a weight is NaN or infinite.
        InputError: something given cannot be used.
    """
    if max_tokens is not None and max_tokens < 1:
        raise DataError(f"max_tokens is {max_tokens}; give at least 1, or None for all.")
    entry = _entry(task, data, max_tokens, max_examples, text_column)
    opened = open_model(model, tokenizer, dtype=dtype, device=device)

    def told(done: int, samples: int) -> None:
        progress("evaluate", done, samples, Facts(ahead=()))

    if entry is not None:
        require_head(opened.model, entry)
        require_finite(opened.model)
        length = task_length(opened, entry, seq_len)
        prepared = prepare(entry, data, opened.tokenizer, length, max_examples, seed)
        return prepared.score(opened.model, told=told)
    masked = _is_masked(opened)
    require_finite(opened.model)
    length = sequence_length(opened, seq_len)
    records = records_of(data, opened, text_column, "test")
    rest: dict[str, Any] = {"seq_len": length, "max_tokens": max_tokens, "on_progress": told}
    with evaluating(opened.model):
        if not masked:
            return perplexity(opened.model, opened.tokenizer, records, **rest)
        generator = torch.Generator().manual_seed(seed)
        loss = masked_lm_loss(opened.model, opened.tokenizer, records, generator=generator, **rest)
        return replace(loss, protocol=loss.protocol | {"seed": seed})


def _entry(
    task: str | Task | None,
    data: Any,
    max_tokens: int | None,
    max_examples: int | None,
    text_column: str | tuple[str, str] | None,
) -> Task | None:
    """The task that is meant, with the caller's own columns; None where it is the plain measurement."""
    if task is None:
        if data is None:
            raise DataError("neither data nor task is given; give one of them, such as task='glue/sst2'.")
        if max_examples is not None:
            raise DataError(f"max_examples is {max_examples}, but there is no task; give max_tokens instead.")
        return None
    if max_tokens is not None:
        raise DataError(f"max_tokens is {max_tokens}, and a task is given; give max_examples instead.")
    entry = task_named(task)
    if text_column is None:
        return entry
    names = names_of(text_column)
    if len(names) != len(entry.columns):
        raise DataError(
            f"text column {', '.join(names)}: {entry.name} reads {len(entry.columns)} columns of text "
            f"({', '.join(entry.columns)}); name as many."
        )
    return replace(entry, columns=names)


def task_length(opened: Opened, task: Task, asked: int | None) -> int:
    """Tokens of an example: what was asked, or the task's, where the model's context and tokenizer allow."""
    if asked is not None or task.kind == "perplexity":
        return sequence_length(opened, asked)
    tokens = getattr(opened.tokenizer, "model_max_length", None)
    limits = (task.seq_len or LONGEST_DEFAULT, positions_of(opened.model), tokens)
    return min(limit for limit in limits if limit is not None)


def _is_masked(opened: Opened) -> bool:
    """Whether the model fills in masked tokens; else it writes.

    Raises:
        ModelError: it does neither.
    """
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
    return masked
