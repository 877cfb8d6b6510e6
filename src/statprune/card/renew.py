"""The results of a card written anew, in its text and in the Hub's metadata; all else stays as it is."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCardData
from huggingface_hub.repocard import REGEX_YAML_BLOCK

from statprune.card.card import Marked, results_section
from statprune.card.dense_model import CARD
from statprune.card.scores import OURS, evaluations, numbers_of
from statprune.checkpoint.aside import flush
from statprune.checkpoint.record_file import read_record
from statprune.results import read

INDEX = "model-index"


def renew(folder: Path) -> str | None:
    """Write the results kept in `folder` into its card, between our markers, and into its `model-index`.

    Whatever else stands in the card stays, byte for byte.

    Returns:
        Why the card was left alone, in a sentence; None where it was renewed.

    Raises:
        InputError: the record, or a result, cannot be read.
    """
    path, results = folder / CARD, read(folder)
    record = read_record(folder)
    try:
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        return f"{path} is not there, so no card was renewed."
    except (OSError, UnicodeDecodeError) as error:
        return f"{path} was left alone: it cannot be read ({error})."
    marked = Marked.of(text)
    if marked is None:
        return f"{path} was left alone: our two lines, between which results stand, are not in it once each."
    line_break = "\r\n" if "\r\n" in text else "\n"
    renewed = marked.around(results_section(record, results), line_break)
    indexed = with_index(renewed, evaluations(numbers_of(results)), folder.resolve().name)
    if indexed is None:
        return f"{path} was left alone: its metadata, between the lines ---, cannot be read."
    try:
        if indexed != text:
            _replace(path, indexed)
    except OSError as error:
        return f"{path} was left alone: it cannot be written ({error.strerror})."
    return None


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(text.encode("utf-8"))
        flush(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def with_index(text: str, ours: Sequence[EvalResult], name: str) -> str | None:
    """The card with `ours` in its `model-index`, beside those that others put there; None if unreadable."""
    match = REGEX_YAML_BLOCK.search(text)
    if match is None:
        return None
    metadata = match.group(2)
    try:
        node, values = yaml.compose(metadata, yaml.SafeLoader), yaml.safe_load(metadata)
        known = _known(values.get(INDEX), name)
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError, RecursionError):
        return None
    if not isinstance(node, yaml.MappingNode) or node.flow_style:
        return None
    title, others = known
    line_break = "\r\n" if "\r\n" in metadata else "\n"
    entry = _index_block(title, [*others, *ours], line_break)
    start, end = _place(node, metadata)
    before, behind = metadata[:start].rstrip("\r\n"), metadata[end:].lstrip("\r\n")
    renewed = line_break.join(part for part in (before, entry, behind) if part)
    return text[: match.start(2)] + renewed + text[match.end(2) :]


def _known(index: Any, name: str) -> tuple[str, list[EvalResult]]:
    """The model's name in the index, and the results there that are not ours."""
    if index is None:
        return name, []
    data = ModelCardData(**{INDEX: index})
    found = data.eval_results or []
    return str(data.model_name or name), [each for each in found if each.metric_args != OURS]


def _index_block(name: str, results: list[EvalResult], line_break: str) -> str:
    if not results:
        return ""
    return ModelCardData(model_name=name, eval_results=results).to_yaml(line_break=line_break)


def _place(node: yaml.MappingNode, metadata: str) -> tuple[int, int]:
    """Where the index stands in the metadata; at its end where there is none."""
    places = [(key.start_mark.index, _end(value)) for key, value in node.value if key.value == INDEX]
    return places[0] if places else (len(metadata), len(metadata))


def _end(node: yaml.Node) -> int:
    """Where the last word of a node ends: the parser counts comments behind it as part of it."""
    if isinstance(node, yaml.ScalarNode) or node.flow_style or not node.value:
        return int(node.end_mark.index)
    last = node.value[-1]
    return _end(last[1] if isinstance(last, tuple) else last)
