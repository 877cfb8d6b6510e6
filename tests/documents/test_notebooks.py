"""The notebooks run from top to bottom, offline, and are kept without outputs."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def _name(path: Path) -> str:
    return path.stem


def test_there_are_two() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["decoder", "encoder"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=_name)
def test_it_is_kept_without_outputs(path: Path) -> None:
    """No number in it can be older than the code."""
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


@pytest.mark.audit
@pytest.mark.parametrize("path", NOTEBOOKS, ids=_name)
def test_it_runs(path: Path, tmp_path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert "keep 0.7" in printed
    assert list(tmp_path.iterdir()) == [], "it cleans up behind itself"
