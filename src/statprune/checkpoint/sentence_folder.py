"""Folders of sentence-transformers: modules.json names a transformer, and modules that run behind it.

Only the transformer is made smaller. All else in the folder is copied as it is.
"""

import os
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from statprune.checkpoint.classes import PREFIX
from statprune.checkpoint.modelling import MODELLING_FILE
from statprune.checkpoint.weight_files import require_own_files
from statprune.errors import ModelError, VerificationError
from statprune.json_file import json_of

MODULES_FILE = "modules.json"

# What is written anew, or would be the dense model again in another format.
_NOT_COPIED = ("config.json", "generation_config.json", "statprune.json", MODELLING_FILE)
_WEIGHTS = (
    ".safetensors",
    ".safetensors.index.json",
    ".bin",
    ".bin.index.json",
    ".pt",
    ".h5",
    ".onnx",
    ".ot",
)

_TEXTS = ["A man is playing a guitar.", "Interest rates rose again, and markets fell."]


def place_of_transformer(folder: Path) -> str:
    """Where in `folder` the transformer lies: "" for the folder itself, or a name such as 0_Transformer.

    Raises:
        ModelError: modules.json cannot be read, or does not begin with a transformer.
    """
    path = folder / MODULES_FILE
    if not path.exists():
        return ""
    modules = _modules(folder)
    _require_own(modules, folder)
    places = [place for kind, place in modules if kind.rpartition(".")[2].endswith("Transformer")]
    if len(places) != 1:
        raise ModelError(
            f"{path} names {len(places)} transformers; one can be made smaller here. "
            f"Give the folder of that one alone."
        )
    return places[0]


def _require_own(modules: list[tuple[str, str]], folder: Path) -> None:
    """Refuse modules whose code is not that of sentence-transformers, or whose files lie elsewhere."""
    path = folder / MODULES_FILE
    home = Path(os.path.realpath(folder))
    for kind, place in modules:
        if not kind.startswith("sentence_transformers."):
            raise ModelError(
                f"{path}: {kind} needs code that comes with it, never run here. Remove that module."
            )
        if ".." in Path(place).parts or not Path(os.path.realpath(folder / place)).is_relative_to(home):
            raise ModelError(f"{path} says that a module is in '{place}', outside the folder. Correct it.")
        if (folder / place).is_dir():
            require_own_files(folder / place)


def belongs_to(source: Path | None, architecture: str) -> bool:
    """Whether `source` is such a folder, and its transformer was saved as `architecture`, a stock class."""
    if source is None or not (source / MODULES_FILE).exists():
        return False
    try:
        content = json_of(source / place_of_transformer(source) / "config.json", unique=False)
        names = content.get("architectures") or [architecture]
    except (OSError, ValueError, AttributeError):
        return False
    return str(names[0]).removeprefix(PREFIX) == architecture


def copy_rest(source: Path, out: Path) -> None:
    """Copy what is not the transformer's weights and config: modules, tokenizer, settings and model card.

    A modelling file, which is in `out` already, is laid into the folder itself, too.
    """
    place = place_of_transformer(source)
    code = out / place / MODELLING_FILE
    if place and code.exists():
        # Of a class in a subfolder, transformers looks for the code in the folder.
        shutil.copyfile(code, out / MODELLING_FILE)
    for file in _rest(source, place):
        target = out / file.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)


def _rest(source: Path, place: str) -> Iterator[Path]:
    for folder in sorted({source, source / place}):
        files = (file for file in folder.iterdir() if file.is_file())
        yield from (f for f in files if f.name not in _NOT_COPIED and not f.name.endswith(_WEIGHTS))
    for _, other in _modules(source):
        if other not in ("", place):
            yield from (file for file in (source / other).rglob("*") if file.is_file())


def verify_embeddings(folder: Path, model: PreTrainedModel) -> None:
    """Where sentence-transformers is installed: `folder` opens with it, and embeds as with `model` inside.

    Raises:
        VerificationError: it does not.
    """
    if find_spec("sentence_transformers") is None:
        return
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415 - optional, and slow to import

    try:
        opened = SentenceTransformer(str(folder), device=str(model.device), local_files_only=True)
    except Exception as error:  # it raises whatever it likes
        raise VerificationError(
            f"sentence-transformers does not open the saved folder: {type(error).__name__}: {error}"
        ) from error
    theirs = _embedded(opened)
    was_training = model.training
    opened[0].model = model
    try:
        ours = _embedded(opened.eval())
    finally:
        model.train(was_training)
    tolerance = min(64 * torch.finfo(model.dtype).eps, 0.05) * ours.abs().max().item()
    gap = (theirs - ours).abs().max().item() if theirs.shape == ours.shape else float("inf")
    # Written so that a NaN fails.
    if not gap <= tolerance:
        raise VerificationError(
            f"embeddings by sentence-transformers differ by {gap:.3g} after reloading, {tolerance:.3g} is "
            f"allowed. Nothing was kept; please report this with modules.json and config.json."
        )


def _embedded(opened: Any) -> torch.Tensor:
    found: torch.Tensor = opened.encode(_TEXTS, convert_to_tensor=True, show_progress_bar=False)
    return found.double().cpu()


def _modules(folder: Path) -> list[tuple[str, str]]:
    """Type and place of every module, in the order in which they run."""
    path = folder / MODULES_FILE
    try:
        listed = json_of(path, unique=False)
        return [(str(each["type"]), str(each["path"])) for each in listed]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} is no list of modules ({type(error).__name__}). Restore it.") from error
