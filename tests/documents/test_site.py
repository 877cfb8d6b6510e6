"""The site builds strictly, and no page of it asks anything of another machine."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

import statprune
from statprune.cli.main import app

ROOT = Path(__file__).parents[2]
FETCHED = {
    "script": ("src",),
    "link": ("href",),
    "img": ("src", "srcset"),
    "iframe": ("src",),
    "source": ("src", "srcset"),
    "video": ("src", "poster"),
    "audio": ("src",),
    "embed": ("src",),
    "object": ("data",),
    "input": ("src",),
    "use": ("href",),
}
"""Attributes that a browser fetches by itself, by tag; what a reader clicks is not among them."""
NOT_FETCHED = {"canonical", "prev", "next", "author", "license"}
"""Kinds of <link> that name a page and load nothing."""
OFF_SITE = re.compile(r"^\s*(?:\w+:)?//", re.IGNORECASE)
IN_STYLE = re.compile(r"""url\(\s*["']?([^"')]+)|@import\s+["']([^"']+)""")


class Requests(HTMLParser):
    """What a page fetches: attributes of its tags, and addresses in its styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)
        self.found += [first or second for first, second in IN_STYLE.findall(page)]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "link" and set((given.get("rel") or "").split()) <= NOT_FETCHED:
            return
        self.found += [given[name] or "" for name in FETCHED.get(tag, ()) if name in given]


def off_site(page: str) -> list[str]:
    return [address for address in Requests(page).found if OFF_SITE.match(address)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    built = _build(ROOT / "mkdocs.yml", folder)
    assert built.returncode == 0, built.stderr
    return folder


def _build(config: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(config), "-d", str(folder)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def _pages(site: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(site.rglob("*.html")):
        yield path.relative_to(site).as_posix(), path.read_text(encoding="utf-8")


def test_no_page_asks_anything_of_another_machine(site: Path) -> None:
    pages = dict(_pages(site))
    assert len(pages) > 50
    assert {name: found for name, page in pages.items() if (found := off_site(page))} == {}
    for path in site.rglob("*.css"):
        assert [found for found in Requests(path.read_text()).found if OFF_SITE.match(found)] == [], path
    # The theme's script would fetch a diagram's library for this class, and GitHub's numbers for the other.
    for name, page in pages.items():
        assert 'class="mermaid"' not in page, name
        assert 'data-md-component="source"' not in page, name


@pytest.mark.parametrize(
    "page",
    [
        '<script src="https://cdn.example/a.js"></script>',
        '<link rel="stylesheet" href="//fonts.example/css">',
        '<img alt="" src="http://shields.example/b.svg">',
        "<style>@font-face { src: url(https://fonts.example/f.woff2) }</style>",
    ],
)
def test_such_a_page_would_be_found(page: str) -> None:
    assert len(off_site(page)) == 1
    assert off_site('<a href="https://example.org">a link</a><script src="a.js"></script>') == []


def test_every_public_name_has_its_entry_and_every_command_its_section(site: Path) -> None:
    python = (site / "reference" / "python.html").read_text()
    public = [name for name in statprune.__all__ if not name.startswith("_")]
    assert [name for name in public if f'id="statprune.{name}"' not in python] == []
    commands = (site / "reference" / "command-line.html").read_text()
    names = [command.name for command in app.registered_commands]
    assert "compress" in names
    for name in names:
        assert f'id="statprune-{name}"' in commands
    assert "--max-drop" in commands


def test_pages_can_be_searched(site: Path) -> None:
    index = json.loads((site / "search" / "search_index.json").read_text())
    assert any(entry["location"].startswith("guides/llama.html") for entry in index["docs"])


WRONG = {
    "[a](gone.md)": "a link 'gone.md', but the target is not found",
    "[a](reference/linalg.md#statprune.linalg.gram.Nothing)": "does not contain an anchor",
    "[a][statprune.nothing]": "cross-reference target 'statprune.nothing'",
    "[a](/absolute.md)": "absolute link '/absolute.md'",
}


def test_broken_links_fail_the_build(tmp_path: Path) -> None:
    """A small site with the same settings, one link that is right, and one of every kind of wrong ones."""
    docs = tmp_path / "docs"
    (docs / "reference").mkdir(parents=True)
    right = "[good](reference/linalg.md#statprune.linalg.gram.Gram)"
    (docs / "index.md").write_text("\n\n".join(["# Home", right, *WRONG]))
    (docs / "reference" / "linalg.md").write_text("# Reference\n\n::: statprune.linalg.gram\n")
    config = tmp_path / "mkdocs.yml"
    text = (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[0]
    text = re.sub(r"^(hooks|exclude_docs):.*\n(  .*\n)?", "", text, flags=re.MULTILINE)
    config.write_text(text.replace("paths: [src]", f"paths: [{json.dumps(str(ROOT / 'src'))}]"))
    built = _build(config, tmp_path / "site")
    assert built.returncode != 0
    for told in WRONG.values():
        assert told in built.stderr
    assert built.stderr.count("WARNING -") == len(WRONG), built.stderr


def test_links_of_the_readme_lead_somewhere() -> None:
    """It is no page of the site, so the build does not check it."""
    links = re.findall(r"\]\((?!\w+:)([^)#\s]+)", (ROOT / "README.md").read_text())
    assert len(links) > 10
    assert [link for link in links if not (ROOT / link).exists()] == []
