"""Shell blocks, line by line: `statprune` runs in this process; what installs or builds is looked up."""

import io
import re
import shlex
import shutil
import tomllib
from contextlib import redirect_stdout
from pathlib import Path

from statprune.cli.main import run

ROOT = Path(__file__).parents[2]


def run_shell(block: str) -> None:
    """Run every command of a block in the current folder.

    Raises:
        AssertionError: A command failed, is unknown here, or installs what the project does not name.
    """
    for line in block.replace("\\\n", " ").splitlines():
        if words := shlex.split(line, comments=True):
            _command(words)


def _command(words: list[str]) -> None:
    if words[0] == "torchrun":  # in one process: the same model comes out
        words = ["statprune", *words[words.index("-m") + 2 :]]
    if words[0] == "statprune":
        _statprune(words[1:])
    elif words[:2] == ["pip", "install"]:
        for package in words[2:]:
            _can_be_installed(package)
    elif words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), (
            f"no target {words[1]}"
        )
    else:
        raise AssertionError(
            f"{shlex.join(words)}: the tests know no such command; mark the block, with a reason"
        )


def _statprune(words: list[str]) -> None:
    target = None
    if ">" in words:
        target = Path(words[words.index(">") + 1])
        words = words[: words.index(">")]
    if "--out" in words and "--resume" not in words:
        clear(Path(words[words.index("--out") + 1]))
    shown = io.StringIO()
    code: int | str | None = None
    try:
        with redirect_stdout(shown):
            run(words)
    except SystemExit as ended:
        code = ended.code
    assert code in (0, None), f"statprune {shlex.join(words)} ended with {code}"
    if target is not None:
        target.write_text(shown.getvalue())


def clear(out: Path) -> None:
    """A page may show two ways into the same folder; a reader takes one of them."""
    if out.is_symlink() or out.is_file():
        out.unlink()
    else:
        shutil.rmtree(out, ignore_errors=True)


def _can_be_installed(package: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = re.fullmatch(r"statprune(?:\[([\w,-]+)\])?", package)
    if named is not None:
        for extra in (named.group(1) or "").split(","):
            assert not extra or extra in project["optional-dependencies"], f"no extra {extra}"
        return
    pinned = (ROOT / "constraints.txt").read_text().splitlines()
    assert any(line.startswith(f"{package}==") for line in pinned), f"{package} is not in constraints.txt"
