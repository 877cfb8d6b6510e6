"""Write a pruned model to a folder that is either complete and verified, or not there."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

from statprune.anatomy.lookup import Anatomy
from statprune.checkpoint.aside import aside
from statprune.checkpoint.classes import RENAMED, auto_name, class_named, stock_class_of, turn_into
from statprune.checkpoint.finished import note_finished
from statprune.checkpoint.modelling import MODELLING_FILE
from statprune.checkpoint.record_file import RECORD_FILE
from statprune.checkpoint.sentence_folder import (
    belongs_to,
    copy_rest,
    place_of_transformer,
    verify_embeddings,
)
from statprune.checkpoint.shards import write_shards
from statprune.checkpoint.verify import Agreement, verify
from statprune.checkpoint.verify_offloaded import verify_offloaded
from statprune.checkpoint.widths import Encoding, encode

_LEGAL = ("license", "licence", "notice", "use_policy")


@dataclass(frozen=True)
class SavedFolder:
    """What was written, and how to open it."""

    path: Path
    stock: bool
    reencoded_as: str | None
    how_to_load: str
    agreement: Agreement | None = None
    """How far outputs of what was opened again are from those in memory; None where none were compared."""
    reason: str = ""
    """Why it has this form, in a sentence."""

    def at(self, path: Path) -> "SavedFolder":
        """The same folder, by another path to it."""
        how = self.how_to_load.replace(f'"{self.path}"', f'"{path}"')
        return replace(self, path=path, how_to_load=how)

    def to_json(self) -> dict[str, Any]:
        """JSON-able content."""
        return asdict(self) | {"path": str(self.path)}

    @staticmethod
    def of_json(content: Mapping[str, Any]) -> "SavedFolder":
        """What `to_json` gave."""
        agreement = content["agreement"]
        found = None if agreement is None else Agreement(**agreement)
        return SavedFolder(**{**content, "path": Path(content["path"]), "agreement": found})


def save(  # noqa: PLR0913 - all but three are named
    model: PreTrainedModel,
    anatomy: Anatomy,
    out: Path,
    *,
    source: Path | None,
    tokenizer: Any | None,
    processor: Any | None = None,
    record: Mapping[str, Any],
    max_shard_size: str = "5GB",
    verify_batch: Mapping[str, Tensor] | None = None,
    within: Path | None = None,
    describe: Callable[[Path, SavedFolder], None] | None = None,
) -> SavedFolder:
    """Write `model` and all that belongs to it to the new folder `out`, open it again, and compare.

    All is written next to `out` under another name and renamed at the end, so that `out` is never half
    there. The model in memory stays as it is.

    Args:
        model: pruned, in memory.
        anatomy: its sites as they are now.
        out: a folder that does not exist.
        source: the folder of the dense model, for its licence files. Where it is one of sentence-transformers
            and `model` its transformer, `out` becomes one too.
        tokenizer: what `load` gave, or None.
        processor: what `load` gave, or None.
        record: how this model was made; becomes statprune.json.
        max_shard_size: of one weights file.
        verify_batch: inputs on which the saved model must give the outputs of `model`.
        within: the run's state, on the same disk, where it is written first, and where it is noted that it is
            whole; else it is written beside `out`.
        describe: called with the folder, when all else is in it and compared, to write its model card.

    Raises:
        OutputError: `out` exists, or could not be written.
        VerificationError: what was written is not what is in memory.
    """
    encoding = encode(model, anatomy)
    modules = source if belongs_to(source, stock_class_of(type(model)).__name__) else None
    place = "" if modules is None else place_of_transformer(modules)
    with aside(out, within) as folder:
        (folder / place).mkdir(parents=True)
        if anatomy.shelf.lends:
            write_shards(model, anatomy, folder)
        else:
            _write_weights(model, encoding, folder / place, max_shard_size)
        _write_configs(model, encoding, folder / place)
        if modules is not None:
            copy_rest(modules, folder)
        for companion in (tokenizer, processor):
            if companion is not None and not _comes_from(companion, modules, place):
                companion.save_pretrained(folder / place)
        _copy_legal(source, folder)
        text = json.dumps(record, indent=2, ensure_ascii=False)
        (folder / RECORD_FILE).write_text(f"{text}\n", encoding="utf-8")
        agreement = _compared(folder, place, model, anatomy, encoding, verify_batch)
        if modules is not None:
            verify_embeddings(folder, model)
        how = _how_to_load(out, encoding, modules is not None)
        saved = SavedFolder(out, encoding.stock, encoding.reencoded_as, how, agreement, encoding.reason)
        if describe is not None:
            describe(folder, saved)
        if within is not None:
            note_finished(within, folder, saved.to_json())
    return saved


def _compared(
    folder: Path,
    place: str,
    model: PreTrainedModel,
    anatomy: Anatomy,
    encoding: Encoding,
    batch: Mapping[str, Tensor] | None,
) -> Agreement | None:
    if anatomy.shelf.lends:
        return verify_offloaded(folder, model, anatomy, batch)
    return verify(folder / place, model, encoding, batch)


def _comes_from(companion: Any, modules: Path | None, place: str) -> bool:
    """Whether its files are among those that have been copied."""
    name = getattr(companion, "name_or_path", "")
    return modules is not None and bool(name) and Path(name).absolute() == (modules / place).absolute()


def _write_weights(model: PreTrainedModel, encoding: Encoding, folder: Path, max_shard_size: str) -> None:
    with _unchanged(model):
        # Transformers renames some weights of its own classes on the way, and of no other class.
        if encoding.reencoded_as is None:
            turn_into(model, class_named(encoding.architecture) or type(model))
        model.save_pretrained(folder, max_shard_size=max_shard_size)


def _write_configs(model: PreTrainedModel, encoding: Encoding, folder: Path) -> None:
    generation = getattr(model, "generation_config", None)
    if generation is not None:
        generation.to_json_file(folder / "generation_config.json")
    encoding.config.to_json_file(folder / "config.json")
    (folder / MODELLING_FILE).unlink(missing_ok=True)
    if encoding.modelling is not None:
        (folder / MODELLING_FILE).write_text(encoding.modelling, encoding="utf-8")


@contextmanager
def _unchanged(model: PreTrainedModel) -> Iterator[None]:
    """Undo what is done to the model, and its config, while it is saved.

    Meanwhile the generation config is a default one: `save_pretrained` refuses some that checkpoints hold,
    and that must not cost a run.
    """
    values, generation = dict(model.config.__dict__), getattr(model, "generation_config", None)
    own_class, renamed = type(model), vars(model).get(RENAMED)
    if generation is not None:
        model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.__class__ = own_class
        if renamed is not None:
            vars(model)[RENAMED] = renamed
        model.config.__dict__.clear()
        model.config.__dict__.update(values)
        if generation is not None:
            model.generation_config = generation


def _copy_legal(source: Path | None, folder: Path) -> None:
    for path in source.iterdir() if source is not None else ():
        if path.is_file() and path.name.lower().startswith(_LEGAL):
            shutil.copyfile(path, folder / path.name)


def _how_to_load(out: Path, encoding: Encoding, modules: bool) -> str:
    name = auto_name(encoding.architecture)
    quoted = json.dumps(str(out), ensure_ascii=False)
    call = "SentenceTransformer" if modules else f"{name}.from_pretrained"
    opening = f"{call}({quoted})"
    if encoding.stock:
        how = f"{opening}  # stock {'sentence-' if modules else ''}transformers"
        return how if encoding.reencoded_as is None else f"{how}; {encoding.reason}"
    trusting = f"{call}({quoted}, trust_remote_code=True)"
    return f"import statprune; {opening}  # or, without statprune: {trusting}"
