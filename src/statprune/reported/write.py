"""`report`: folders -> one page, and its figures."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from statprune.checkpoint.aside import aside, check_output
from statprune.errors import InputError, OutputError
from statprune.reported.compare import compare_page
from statprune.reported.drawing import style
from statprune.reported.page import html, write_figures
from statprune.reported.plan_page import plan_page
from statprune.reported.reading import Left, read
from statprune.reported.run_page import run_page
from statprune.reported.sections import Page

PAGE = "report.html"


@dataclass(frozen=True)
class Reported:
    """What `report` has written.

    Attributes:
        out: the page.
        bytes: its size.
        charts: how many are on it.
        figures: the folder of figures; None where none were asked for.
        files: their names.
    """

    out: str
    bytes: int
    charts: int
    figures: str | None = None
    files: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """JSON-able content."""
        return asdict(self) | {"files": list(self.files)}


def report(
    *folders: str | Path,
    out: str | Path | None = None,
    figures: str | Path | None = None,
) -> Reported:
    """Write a page about one run, about a measurement, or about several runs side by side.

    It is made of the JSON in the folders alone: one HTML file, without scripts, that needs nothing else. The
    same folders give the same bytes.

    Args:
        folders: what `compress` or `plan` has written; several are to be of `compress`.
        out: the file to write, which does not exist yet; by default report.html in the folder, of one.
        figures: a folder that does not exist yet, for the same figures as SVG and PNG.

    Raises:
        InputError: a folder holds no run that can be read, or nothing says where to write.
        OutputError: something to be written exists already, or cannot be written.
    """
    if not folders:
        raise InputError("no folder is given; give one that `statprune compress --out` made.")
    if out is None and len(folders) > 1:
        raise InputError(
            f"{len(folders)} folders are compared, and nothing says where to write; give out (--out)."
        )
    page_file = Path(out) if out is not None else Path(folders[0]) / PAGE
    found = [read(Path(folder)) for folder in folders]
    measured = [str(folder) for folder, left in zip(folders, found, strict=True) if left.measured]
    if measured and len(found) > 1:
        raise InputError(f"{measured[0]} is a measurement, and only runs can be compared; report it alone.")
    _require_free(page_file)
    if figures is not None:
        if Path(figures).absolute() == page_file.absolute():
            raise InputError(f"{figures} is both the page and the folder of figures; give two names.")
        check_output(Path(figures))
    with style():
        page = _page(found)
        content = html(page).encode()
        files: Sequence[str] = ()
        if figures is not None:
            with aside(Path(figures)) as partial:
                partial.mkdir()
                files = write_figures(page, partial)
        with aside(page_file) as partial:
            partial.write_bytes(content)
    return Reported(
        str(page_file),
        len(content),
        len(page.charts),
        None if figures is None else str(figures),
        tuple(files),
    )


def _page(found: Sequence[Left]) -> Page:
    if len(found) > 1:
        return compare_page(found)
    return plan_page(found[0]) if found[0].measured else run_page(found[0])


def _require_free(page_file: Path) -> None:
    if os.path.lexists(page_file):
        raise OutputError(
            f"{page_file} exists, and nothing is ever overwritten. Give another name (--out), or remove it."
        )
    check_output(page_file)
