"""Text before and after: the dense model and a compressed folder go on with the same prompt."""

from dataclasses import dataclass
from pathlib import Path

from statprune.errors import InputError, ModelError
from statprune.evaluation.continuation import continuation
from statprune.evaluation.devices import evaluating
from statprune.explore.choices import Explored
from statprune.inputs import context_length, open_model

MOST_TOKENS = 256
"""No page waits for more."""

MOST_CHARACTERS = 4000


@dataclass(frozen=True)
class Sample:
    """Prompt and continuation, by the dense model and by the compressed one."""

    dense: str
    thin: str


def require_askable(explored: Explored, thin: str, prompt: str, tokens: int) -> None:
    """Refuse what no text can be written for, before a model is opened.

    Raises:
        InputError: the model writes none, there is no folder, or the prompt or the length is out of bounds.
    """
    if explored.mute:
        raise InputError(explored.mute)
    if not thin.strip():
        raise InputError("no compressed folder is named; compress first, or name one made before.")
    if not prompt.strip():
        raise InputError("the prompt is empty; write a few words to go on with.")
    if len(prompt) > MOST_CHARACTERS:
        raise InputError(f"the prompt has {len(prompt)} characters; give at most {MOST_CHARACTERS}.")
    if not 1 <= tokens <= MOST_TOKENS:
        raise InputError(f"{tokens} new tokens are asked for; give 1 to {MOST_TOKENS}.")


def sample(explored: Explored, thin: str, prompt: str, tokens: int) -> Sample:
    """Both texts, greedy; one model is in memory at a time, and none afterwards.

    Raises:
        InputError: as for `require_askable`; or a model cannot be opened, or is of another kind.
    """
    require_askable(explored, thin, prompt, tokens)
    dtype = explored.dtype or "auto"
    folder = Path(thin.strip()).expanduser()
    if not folder.is_dir():
        raise ModelError(f"{folder} is no folder. Compress first, or name a folder made before.")
    return Sample(
        dense=_written(explored.found.model, prompt, tokens, dtype),
        thin=_written(str(folder), prompt, tokens, "auto"),
    )


def _written(model: str, prompt: str, tokens: int, dtype: str) -> str:
    opened = open_model(model, dtype=dtype)
    if opened.tokenizer is None:
        raise ModelError(
            f"{model} has no tokenizer, so no prompt can be read. Put its files into the folder."
        )
    if not opened.model.can_generate():
        raise ModelError(f"{model}: {type(opened.model).__name__} writes no text. Name a compressed decoder.")
    asked, room = len(opened.tokenizer(prompt).input_ids), context_length(opened)
    if asked == 0 or (room is not None and asked + tokens > room):
        raise InputError(
            f"the prompt has {asked} tokens; with {tokens} new ones the model takes {room}. Ask for fewer or "
            f"shorten the prompt."
        )
    with evaluating(opened.model):
        return continuation(opened.model, opened.tokenizer, prompt, tokens)
