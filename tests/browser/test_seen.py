"""The harness itself finds what is wrong: a test with it can fail."""

from pathlib import Path

import pytest

from tests.browser.conftest import Opens

pytestmark = pytest.mark.audit

GOOD = "<!doctype html><html lang=en><title>A page</title><main><h1>A page</h1><p>Words.</p></main>"


def page(folder: Path, text: str) -> str:
    (folder / "page.html").write_text(text)
    return (folder / "page.html").as_uri()


@pytest.mark.parametrize("size", ["phone", "desktop"])
def test_nothing_is_wrong_with_a_good_page(opens: Opens, tmp_path: Path, size: str) -> None:
    seen = opens(page(tmp_path, GOOD), size=size)
    assert (seen.errors, seen.elsewhere, seen.overflow(), seen.violations()) == ([], [], [], [])


def test_what_is_wrong_is_found(opens: Opens, tmp_path: Path) -> None:
    bad = (
        "<!doctype html><title>x</title><img src='http://127.0.0.1:9/a.png'>"
        "<div style='width: 2000px'>wide</div><p style='color: #ccc; background: #fff'>pale</p>"
        "<script>console.error('told'); nothing()</script>"
    )
    seen = opens(page(tmp_path, bad), size="phone")
    assert any("told" in error for error in seen.errors)
    assert any("nothing is not defined" in error for error in seen.errors)
    assert seen.elsewhere == ["http://127.0.0.1:9/a.png"]
    assert any("DIV" in found for found in seen.overflow())
    rules = " ".join(seen.violations())
    assert "image-alt" in rules
    assert "color-contrast" in rules
    assert "html-has-lang" in rules


def test_dark_is_dark(opens: Opens, tmp_path: Path) -> None:
    asked = "matchMedia('(prefers-color-scheme: dark)').matches"
    found = [opens(page(tmp_path, GOOD), dark=dark).page.evaluate(asked) for dark in (False, True)]
    assert found == [False, True]
