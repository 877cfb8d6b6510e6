"""What the tree promises: small files, honest names, a map in the README that is the tree."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "statprune"
MODULES = sorted(SOURCE.rglob("*.py"))
LONGEST = 300
BANNED = {"utils", "util", "helpers", "common", "misc", "core", "base"}


@pytest.mark.parametrize("path", MODULES + sorted((ROOT / "tests").rglob("*.py")), ids=lambda p: p.stem)
def test_no_file_is_longer_than_a_reader_can_hold(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LONGEST


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)
def test_a_file_is_named_after_what_it_holds_and_says_so(path: Path) -> None:
    assert path.stem not in BANNED
    assert path.parent.name not in BANNED
    assert ast.get_docstring(ast.parse(path.read_text())), f"{path} has no docstring"


def test_the_map_in_the_readme_is_the_tree() -> None:
    block = re.search(r"<!-- tree -->\n```text\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert block, "README.md has no <!-- tree --> block"
    listed = {line.split()[0] for line in block.group(1).splitlines() if line.strip()}
    names = {path.name for path in MODULES if path.name != "__init__.py"}
    folders = {f"{path.parent.name}/" for path in MODULES if path.parent != SOURCE}
    expected = names | folders
    mapped = {name for name in listed if name.endswith(".py") or name.rstrip("/") + "/" in folders}
    assert expected - mapped == set(), f"not in the README's map: {sorted(expected - mapped)}"
    gone = {name for name in listed if name.endswith(".py")} - names
    assert gone == set(), f"in the README's map, but not in the tree: {sorted(gone)}"


def test_the_repository_speaks_of_the_project_alone() -> None:
    absolute = re.compile(r"(?<![\w.])/(?:work|root|home|tmp|opt)/\w")
    written = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*"), *(ROOT / "benchmarks").rglob("*")]
    for path in [*MODULES, *written]:
        if path.is_file() and path.suffix in {".py", ".md", ".json"}:
            found = absolute.search(path.read_text())
            assert found is None, f"{path}: absolute path {found}"


def test_every_number_in_the_readme_was_printed_by_a_benchmark() -> None:
    section = re.search(r"## Results so far\n(.*?)\n## ", (ROOT / "README.md").read_text(), re.DOTALL)
    assert section, "README.md has no results"
    pages = [*(ROOT / "benchmarks" / "results").glob("*.md"), *(ROOT / "benchmarks" / "quality").glob("*.md")]
    printed = "\n".join(path.read_text() for path in pages)
    rows = [line for line in section.group(1).splitlines() if line.startswith("| ") and "---" not in line]
    assert len(rows) > 10
    for row in rows:
        assert row in printed, f"not in benchmarks/results: {row}"
