"""`harness`: scores of a model, of any widths, on tasks of lm-evaluation-harness."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from statprune.checkpoint.load import require_finite
from statprune.engine.progress import Facts, Progress, no_progress
from statprune.errors import InputError, ModelError
from statprune.evaluation.harness import HarnessScores, harness_scores
from statprune.evaluation.harness_process import listening, seeds_put_back
from statprune.evaluation.harness_tasks import find_tasks, load_tasks
from statprune.inputs import Opened, is_of_content, open_model


def harness(  # noqa: PLR0913 - the options of `statprune evaluate --harness`
    model: PreTrainedModel | str | Path,
    tasks: str | Sequence[str],
    *,
    tasks_dir: str | Path | None = None,
    num_fewshot: int | None = None,
    limit: int | None = None,
    batch_size: int = 1,
    tokenizer: Any = None,
    dtype: str = "auto",
    device: str = "auto",
    seed: int | None = None,
    progress: Progress = no_progress,
) -> HarnessScores:
    """Scores on tasks of lm-evaluation-harness: accuracy of multiple choice, perplexity of words, and so on.

    They are those of the harness's own command line with the same options. Tasks and their data are looked
    for before the model is opened. A task's file may name code, which is run.

    Args:
        model: a Hugging Face model, pruned or not, its folder, or its name on the hub.
        tasks: names of tasks, groups or tags, as a sequence or joined by commas; `*` and `?` are patterns.
        tasks_dir: a folder with task files of one's own (the harness's include_path).
        num_fewshot: solved examples in front of each question; None takes each task's own number.
        limit: of each task no more than the first so many examples; for trials only.
        batch_size: rows at once; results differ by rounding only.
        tokenizer: takes precedence over the model's own.
        dtype: what weights are loaded as; "auto" keeps the checkpoint's.
        device: where to compute; "auto" takes a GPU where there is one.
        seed: of every draw; None takes the harness's own seeds.
        progress: called after every answer with ("evaluate", answers, all of them).

    Raises:
        DataError: the data of a task cannot be read.
        ModelError: the model cannot be opened, does not write text, or has no tokenizer.
        NonFiniteError: a weight is NaN or infinite.
        InputError: the harness is not installed, a task is unknown, or a number makes no sense.
    """
    least = {"num_fewshot": (num_fewshot, 0), "limit": (limit, 1), "batch_size": (batch_size, 1)}
    for name, (given, smallest) in least.items():
        if given is not None and given < smallest:
            raise InputError(f"{name} is {given}; give at least {smallest}.")

    def told(done: int, requests: int) -> None:
        progress("evaluate", done, requests, Facts(ahead=()))

    with seeds_put_back(), listening() as said:
        found = find_tasks(tasks, tasks_dir)
        loaded = load_tasks(found)
        opened = open_model(model, tokenizer, dtype=dtype, device=device)
        _require_writer(opened)
        require_finite(opened.model)
        return harness_scores(
            opened.model,
            opened.tokenizer,
            found,
            loaded,
            said=said,
            num_fewshot=num_fewshot,
            limit=limit,
            batch_size=batch_size,
            seed=seed,
            on_progress=told,
        )


def _require_writer(opened: Opened) -> None:
    name = type(opened.model).__name__
    if "ForMaskedLM" in name or is_of_content(opened) or not opened.model.can_generate():
        raise ModelError(
            f"{opened.name}: {name} does not write text after a text, and harness tasks ask how probable an "
            f"answer is after its question. Give a model with a causal language-modelling head; an encoder "
            f"is evaluated with --data, or on its own task."
        )
    if opened.tokenizer is None:
        raise ModelError(f"{opened.name}: no tokenizer, and harness tasks are text. Give a tokenizer.")
