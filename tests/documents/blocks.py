"""The fenced blocks of a Markdown page, found by sybil, each with what it takes to run or to read it."""

import json
import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from unittest import SkipTest

import yaml
from sybil import Document, Example, Region
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import SkipParser
from sybil.parsers.markdown.lexers import FencedCodeBlockLexer

from tests.documents.shell import clear, run_shell

READ: dict[str, Callable[[str], object]] = {"json": json.loads, "toml": tomllib.loads, "yaml": yaml.safe_load}
SHOWN = ("text",)
"""Trees, output and formulas: nothing to run."""


@dataclass
class Ran:
    """Blocks of a page that ran or were read, that were only shown, and by line why others were left out."""

    run: int = 0
    shown: int = 0
    left_out: dict[int, str] = field(default_factory=dict)


def run_blocks(path: Path) -> Ran:
    """Run all blocks of a page in the current folder, the Python ones in one namespace.

    A comment `<!-- skip: next "reason" -->` above a block leaves it out.

    Raises:
        AssertionError: A block failed, has no language, or one that is not known here.
    """
    ran = Ran()
    for example in Document.parse(str(path), _fences, SkipParser()):
        mark = example.region.lexemes.get("language") is None
        try:
            example.evaluate()
        except SkipTest as left:
            ran.left_out[example.line] = str(left)
            continue
        except Exception as failure:
            raise AssertionError(f"{path.name}, line {example.line}: {failure!r}") from failure
        if not mark:
            ran.shown += _word(example.region) in SHOWN
            ran.run += _word(example.region) not in SHOWN
    return ran


def _fences(document: Document) -> Iterator[Region]:
    for region in FencedCodeBlockLexer("[^\n]*")(document):
        region.parsed = region.lexemes["source"]
        region.evaluator = _evaluate
        yield region


def _word(region: Region) -> str:
    return str(region.lexemes["language"]).partition(" ")[0]


def _evaluate(example: Example) -> None:
    word = _word(example.region)
    title = re.search(r'title="([^"]+)"', example.region.lexemes["language"])
    if word == "python":
        for out in re.findall(r'\bout="([^"]+)"', example.parsed):
            clear(Path(out))
        PythonEvaluator()(example)
    elif word == "sh":
        run_shell(example.parsed)
    elif word in READ:
        READ[word](example.parsed)
    else:
        assert word in SHOWN, f"a block of language {word!r}; known: python, sh, {', '.join([*READ, *SHOWN])}"
    if title:
        Path(title.group(1)).write_text(example.parsed)
