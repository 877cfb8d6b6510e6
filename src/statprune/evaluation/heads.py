"""Whether a model has the head that a task asks."""

from typing import Any

from statprune.errors import ModelError
from statprune.evaluation.labels import order_of
from statprune.evaluation.tasks import Task

_CLASSIFIES = ("ForSequenceClassification", "that classifies texts")
_HEADS = {
    "classes": _CLASSIFIES,
    "score": _CLASSIFIES,
    "spans": ("ForQuestionAnswering", "that finds answers in a text"),
    "last word": ("ForCausalLM", "that writes a text from left to right"),
    "perplexity": ("ForCausalLM", "that writes a text from left to right"),
}


def require_head(model: Any, task: Task) -> None:
    """Nothing, where the model has the task's head and as many labels.

    Raises:
        ModelError: It has not.
    """
    name = type(model).__name__
    head, does = _HEADS[task.kind]
    if head == "ForCausalLM":
        fits = model.can_generate() and not model.config.is_encoder_decoder and "ForMaskedLM" not in name
    else:
        fits = head in name
    if not fits:
        raise ModelError(f"{name} has no head {does}, which {task.name} asks for; take a ...{head}.")
    if task.kind in ("classes", "score"):
        order_of(model, task)
