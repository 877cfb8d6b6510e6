"""`statprune report`, from a run to its page."""

import json
from pathlib import Path

from tests.cli.conftest import Command
from tests.cli.test_commands import one_object
from tests.reported.left_behind import leave, record


def test_a_run_its_results_and_its_page(command: Command, world: Path, tmp_path: Path) -> None:
    out, data = tmp_path / "out", world / "text.txt"
    made = command(
        "compress", world / "llama", "--keep", 0.7, "--data", data, "--samples", 8, "--seq-len", 16,
        "--out", out,
    )  # fmt: skip
    assert made.code == 0, made.err
    for model in (out, world / "llama"):
        ended = command("evaluate", model, "--data", data, "--seq-len", 16, "--record", out, "--quiet")
        assert ended.code == 0, ended.err
    ended = command("report", out, "--figures", tmp_path / "figures")
    assert (ended.code, ended.err) == (0, "")
    page = (out / "report.html").read_text()
    assert f"{out / 'report.html'}: " in ended.out
    evaluated = sorted((out / "results").glob("*.json"))
    assert len(evaluated) == 2
    for path in evaluated:
        assert f"{json.loads(path.read_text())['result']['perplexity']:.2f}" in page
    content = json.loads((out / "statprune.json").read_text())
    assert f"{content['parameters']['kept']:,}" in page
    assert "not recorded" not in page
    assert "Curves are not recorded" not in page


def test_json_says_where_and_how_large(command: Command, tmp_path: Path) -> None:
    folder = leave(tmp_path / "run", record(blocks=1))
    ended = command("report", folder, "--json", "--out", tmp_path / "page.html")
    printed = one_object(ended.out)
    assert printed["out"] == str(tmp_path / "page.html")
    assert printed["bytes"] == (tmp_path / "page.html").stat().st_size
    assert (ended.code, ended.err) == (0, "")


def test_refusals_are_one_line_and_exit_code_2(command: Command, tmp_path: Path) -> None:
    folder = leave(tmp_path / "run", record(blocks=1))
    assert command("report", folder).code == 0
    for arguments in ((folder,), (folder, folder), (tmp_path,), (tmp_path / "gone",)):
        ended = command("report", *arguments)
        assert ended.code == 2
        assert ended.err.startswith("error: ")
        assert len(ended.err.splitlines()) == 1
