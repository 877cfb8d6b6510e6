"""Every block of the documentation runs, on small stand-ins, or says why it does not."""

from pathlib import Path

import pytest

from statprune import efficiency
from tests.documents.blocks import run_blocks
from tests.documents.desk import build_desk, lay_out, sit_down

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
WITH_BLOCKS = [page for page in PAGES if "```" in page.read_text(encoding="utf-8")]
SLOW = {"docs/efficiency.md", "docs/guides/serve.md", "docs/serving.md"}
"""Pages that `make audit` runs."""
LEFT_OUT = {
    "docs/explore.md": 1,
    "docs/guides/architecture.md": 1,
    "docs/guides/serve.md": 3,
    "docs/harness.md": 3,
    "docs/model-card.md": 1,
    "docs/serving.md": 2,
    "docs/trust.md": 3,
}
"""How many blocks of a page are marked as not run; a new mark is a decision, taken here too."""


def _name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def _case(page: Path) -> object:
    return pytest.param(page, id=_name(page), marks=[pytest.mark.audit] if _name(page) in SLOW else [])


@pytest.fixture(scope="session")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_desk(tmp_path_factory.mktemp("desk"))


@pytest.fixture(autouse=True)
def _no_children(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is measured in a fresh process a model, which takes seconds: on pages of `make audit` alone."""
    if request.node.get_closest_marker("audit") is None:
        monkeypatch.setattr(efficiency, "in_fresh_process", lambda asked: None)


@pytest.mark.parametrize("page", [_case(page) for page in WITH_BLOCKS])
def test_every_block_runs(page: Path, desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sit_down(monkeypatch, lay_out(desk, tmp_path))
    ran = run_blocks(page)
    assert len(ran.left_out) == LEFT_OUT.get(_name(page), 0), ran
    assert ran.run + ran.shown + len(ran.left_out) == page.read_text(encoding="utf-8").count("```") // 2
