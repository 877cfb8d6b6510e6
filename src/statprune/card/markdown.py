"""Names and sentences of others, as Markdown that shows them and does nothing else."""

import html
import re
import unicodedata
from collections.abc import Sequence

_SPECIAL = re.compile(r"([\\`*{}\[\]#!|~:@]|(?<!\w)_|_(?!\w)|(?<=www)\.)", re.IGNORECASE)


def one_line(text: object) -> str:
    """`text` in one line, without characters that control how it is shown."""
    joined = " ".join(str(text).split())
    return "".join("\N{REPLACEMENT CHARACTER}" if _controls(each) else each for each in joined)


def escaped(text: object) -> str:
    """`text` as plain words: no markup, no HTML, no link, no line break."""
    return html.escape(_SPECIAL.sub(r"\\\1", one_line(text)), quote=False)


def code(text: object) -> str:
    """`text` as a code span, which nothing in it can end."""
    line = one_line(text)
    fence = "`" * (_longest_run(line) + 1)
    space = " " if line[:1] in ("`", "") or line[-1:] == "`" else ""
    return f"{fence}{space}{line}{space}{fence}"


def block(text: str, language: str) -> str:
    """`text` as a fenced block, which nothing in it can end."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are Markdown already; a bar in one does not end it."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(_cell(each) for each in line)} |" for line in lines)


def _cell(text: str) -> str:
    # A bar ends a cell even in a code span, unless it is escaped; in words it is escaped already.
    return re.sub(r"(?<!\\)\|", r"\\|", text)


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)


def _controls(character: str) -> bool:
    return unicodedata.category(character)[0] == "C"
