"""What the base model says about itself: its card's metadata and text, and its licence."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.repocard import REGEX_YAML_BLOCK

from statprune.card.markdown import code, escaped, one_line
from statprune.json_file import json_of

CARD = "README.md"
_REPOSITORY = re.compile(r"[\w.-]+(/[\w.-]+)?")
_INHERITED = ("language", "pipeline_tag", "library_name", "license", "license_name", "license_link")
# What a base card says of files that are not in the folder that comes out.
_FORMATS = {"onnx", "openvino", "gguf", "tf", "tflite", "jax", "rust", "coreml", "mlx", "pytorch", "ggml"}


@dataclass(frozen=True)
class Base:
    """The dense model that a folder was made from.

    Attributes:
        name: of its folder, or its name on the hub.
        repository: its name on the hub; None where that is not known.
        metadata: what of its card holds for what is made of it, JSON-able.
        licence: the identifier that it states; None where it states none.
        licence_told: the same as a sentence, Markdown.
        text: of its card, without metadata; "" without a card.
    """

    name: str
    repository: str | None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    licence: str | None = None
    licence_told: str = ""
    text: str = ""


def base_of(name: str, source: Path | None, origin: str = "") -> Base:
    """The base model of a run.

    Args:
        name: as it was given: a folder, a name on the hub, or what a model in memory is called.
        source: the folder that it was read from, of a hub model that in the local cache; None for none.
        origin: what a model in memory says that it was opened from.
    """
    repository = _repository(name if source is not None else origin)
    short = repository or (Path(name).name if source is not None else one_line(name))
    text = _text_of(source, repository)
    metadata, rest = _parted(text)
    kept = {key: metadata[key] for key in _INHERITED if _is_words(metadata.get(key))}
    tags: Any = metadata.get("tags")
    if _is_words(tags):
        own = [tags] if isinstance(tags, str) else tags
        kept["tags"] = [tag for tag in own if tag.lower() not in _FORMATS]
    licence, told = _licence(kept, source, repository)
    if licence == "other" and "license" not in kept:
        kept |= {"license": "other", "license_name": "see-license-file", "license_link": told[1]}
    return Base(short, repository, kept, licence, told[0], rest)


def _repository(name: str) -> str | None:
    """`name`, if it is a name on the hub and not a folder here."""
    is_one = _REPOSITORY.fullmatch(name) is not None and name[0] not in "./~"
    return name if is_one and not Path(name).expanduser().is_dir() else None


def _text_of(source: Path | None, repository: str | None) -> str:
    path = None if source is None else source / CARD
    if path is None and repository is not None:
        found = try_to_load_from_cache(repository, CARD)
        path = Path(found) if isinstance(found, str) else None
    try:
        return path.read_text(encoding="utf-8-sig") if path is not None else ""
    except (OSError, ValueError):
        return ""


def _parted(text: str) -> tuple[dict[str, Any], str]:
    """Metadata and text of a card; a block that cannot be read is none."""
    match = REGEX_YAML_BLOCK.search(text)
    if match is None:
        return {}, text
    try:
        values = yaml.safe_load(match.group(2))
    except (yaml.YAMLError, ValueError, RecursionError):
        values = None
    return (values if isinstance(values, dict) else {}), text[match.end() :]


def _is_words(value: Any) -> bool:
    """Whether it is a word or a list of words."""
    return (isinstance(value, str) and bool(value.strip())) or (
        isinstance(value, list) and bool(value) and all(isinstance(each, str) for each in value)
    )


def _licence(
    metadata: Mapping[str, Any], source: Path | None, repository: str | None
) -> tuple[str | None, tuple[str, str]]:
    """The licence stated, and (a sentence on it, its file)."""
    files = _files(source)
    besides = f" The base model's {_listed(files)} {'is' if len(files) == 1 else 'are'} in this folder."
    besides = besides if files else ""
    stated = metadata.get("license")
    if stated is not None:
        names = [stated] if isinstance(stated, str) else list(stated)
        more = "".join(f", {escaped(metadata[key])}" for key in _INHERITED[4:] if key in metadata)
        told = f"{', '.join(code(each) for each in names)}{more}, as the base model's card says.{besides}"
        return ", ".join(names), (told, "")
    in_config = _config(source).get("license")
    if isinstance(in_config, str) and in_config.strip():
        return in_config, (f"{code(in_config)}, as the base model's config.json says.{besides}", "")
    licences = [name for name in files if name.lower().startswith(("license", "licence"))]
    if licences and source is not None:
        first = _first_line(source / licences[0])
        begins = f", which begins: {code(first)}" if first else ""
        return "other", (f"the base model's, in {code(licences[0])}{begins}.", licences[0])
    where = "" if repository is None else f" ({code(repository)})"
    return None, (f"unknown, see the base model{where}.{besides}", "")


def _files(source: Path | None) -> list[str]:
    names = () if source is None else (path.name for path in source.iterdir() if path.is_file())
    legal = ("license", "licence", "notice", "use_policy")
    return sorted(name for name in names if name.lower().startswith(legal))


def _listed(names: list[str]) -> str:
    return ", ".join(code(name) for name in names)


def _first_line(path: Path) -> str:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((one_line(line)[:100] for line in lines if line.strip()), "")


def _config(source: Path | None) -> dict[str, Any]:
    try:
        found = json_of(source / "config.json", unique=False) if source else {}
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
