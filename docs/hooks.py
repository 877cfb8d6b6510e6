"""What mkdocs is told beside mkdocs.yml: pages that lie elsewhere in the tree, and pages that are generated.

Links are written as they work where the repository is hosted, `../benchmarks/log.md`; they are put right when
the site is built, which has some pages elsewhere.
"""

import os
import posixpath
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from nbclient import NotebookClient
from nbconvert import MarkdownExporter
from typer.cli import get_docs_for_click

import statprune
from statprune.cli.main import app

ROOT = Path(__file__).parents[1]
ELSEWHERE = ("CHANGELOG.md", "CONTRIBUTING.md", "benchmarks/**/*.md", "benchmarks/**/*.svg")
"""Pages of the site that lie beside docs/, by their path from the repository's root."""
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)\s#]+)")
GENERATED = re.compile(r"^<!-- generated: (\w+)(?: ([\w.]+))? -->$", re.MULTILINE)
EXECUTE = "STATPRUNE_DOCS_EXECUTE"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """In the navigation a pattern stands for all pages that it fits and that are not named there."""
    nav = config.nav or []
    named = set(_pages(nav))
    config.nav = _spread(nav, named)
    return config


def _pages(nav: list[Any]) -> Iterator[str]:
    for entry in nav:
        for place in entry.values() if isinstance(entry, dict) else [entry]:
            yield from _pages(place) if isinstance(place, list) else [place]


def _spread(nav: list[Any], named: set[str]) -> list[Any]:
    made: list[Any] = []
    for entry in nav:
        if isinstance(entry, dict):
            ((title, place),) = entry.items()
            made.append({title: _spread(place, named) if isinstance(place, list) else place})
        elif "*" in entry:
            folder = ROOT if entry.startswith("benchmarks/") else ROOT / "docs"
            found = sorted(path.relative_to(folder).as_posix() for path in folder.glob(entry))
            made.extend(name for name in found if name not in named)
        else:
            made.append(entry)
    return made


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Take in the pages that lie elsewhere, and the notebooks."""
    for pattern in ELSEWHERE:
        for path in sorted(ROOT.glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, name, abs_src_path=str(path)))
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=_notebook(path)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put generated parts in, and links right."""
    source = page.file.src_uri

    def generated(found: re.Match[str]) -> str:
        return "\n\n".join(_GENERATORS[found[1]](found[2]))

    def there(found: re.Match[str]) -> str:
        return _on_the_site(found[1], source)

    return LINK.sub(there, GENERATED.sub(generated, markdown))


def _on_the_site(link: str, source: str) -> str:
    """Where a link of a page leads on the site: docs/ is its root, and what lies elsewhere keeps its path."""
    beside = source.startswith("benchmarks/") or source in ELSEWHERE
    folder = posixpath.dirname(source if beside else f"docs/{source}")
    target = posixpath.normpath(posixpath.join(folder, link))
    here = posixpath.dirname(source) or "."
    return posixpath.relpath(target.removeprefix("docs/"), here)


def _names(_: str) -> Iterator[str]:
    """Everything in `statprune.__all__`, functions before classes."""
    public = [name for name in statprune.__all__ if not name.startswith("_")]
    for name in sorted(public, key=lambda name: (name[0].isupper(), name)):
        yield f"::: statprune.{name}"


def _package(name: str) -> Iterator[str]:
    """Every module of a package, those of its public names that have a docstring."""
    folder = ROOT.joinpath("src", *name.split("."))
    for path in sorted(folder.glob("*.py")):
        if path.stem != "__init__":
            yield f"::: {name}.{path.stem}"


def _commands(_: str) -> Iterator[str]:
    """Every command of the parser, as typer describes it."""
    command: Any = typer.main.get_command(app)
    with command.make_context("statprune", [], resilient_parsing=True) as context:
        told = get_docs_for_click(obj=command, ctx=context, name="statprune")
    _, _, body = told.partition("\n")  # its title is the page's
    yield body.replace("```console", "```text").replace("][", "]\\[")


def _notebook(path: Path) -> str:
    """A notebook as a page: with its outputs where `STATPRUNE_DOCS_EXECUTE` is set (`make docs` sets it)."""
    notebook = nbformat.read(path, as_version=4)
    if os.environ.get(EXECUTE):
        NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(path.parent)}}).execute()
    page, _ = MarkdownExporter().from_notebook_node(notebook)
    return str(page)


_GENERATORS: dict[str, Callable[[str], Iterator[str]]] = {
    "names": _names,
    "package": _package,
    "commands": _commands,
}
