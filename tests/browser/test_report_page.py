"""The pages of `report` in a browser: telephone and desk, light and dark, nothing from elsewhere."""

from pathlib import Path

import pytest

import statprune
from tests.browser.conftest import Opens
from tests.reported.left_behind import gate, leave, record, results

pytestmark = pytest.mark.audit

PAGES = ["run", "old", "comparison"]
LOOKS = [(size, dark) for size in ("phone", "desktop") for dark in (False, True)]
NAMELESS = """() => [...document.querySelectorAll('svg')]
  .filter(svg => svg.getAttribute('role') !== 'img'
    || !(document.getElementById(svg.getAttribute('aria-labelledby'))?.textContent.trim()))
  .length"""
SMALL = """() => [...document.querySelectorAll('svg.chart')]
  .filter(svg => svg.getBoundingClientRect().width < 250).length"""
CUT = """() => [...document.querySelectorAll('svg.chart')].flatMap(svg => {
  const box = svg.getBoundingClientRect();
  return [...svg.querySelectorAll('text')].filter(text => { const own = text.getBoundingClientRect();
    return own.left < box.left - 1 || own.right > box.right + 1; }).map(text => text.textContent); })"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("reports")
    whole = record(blocks=4, neurons=1536, heads=12, gate=gate())
    old = {
        name: part for name, part in whole.items() if name not in ("curves", "bytes", "parameters", "gate")
    }
    runs = [leave(home / "whole", whole, results()), leave(home / "old", old)]
    runs.append(leave(home / "other", record(blocks=4, neurons=1536, heads=12, seed=1), results()))
    return {
        "run": Path(statprune.report(runs[0]).out),
        "old": Path(statprune.report(runs[1]).out),
        "comparison": Path(statprune.report(*runs, out=home / "comparison.html").out),
    }


@pytest.mark.parametrize(("size", "dark"), LOOKS)
@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_wrong_with_it(
    opens: Opens, pages: dict[str, Path], tmp_path: Path, name: str, size: str, dark: bool
) -> None:
    seen = opens(pages[name].as_uri(), size=size, dark=dark)
    seen.page.screenshot(path=tmp_path / f"{name}-{size}-{'dark' if dark else 'light'}.png", full_page=True)
    assert (seen.errors, seen.elsewhere, seen.overflow()) == ([], [], [])
    assert seen.violations() == []


@pytest.mark.parametrize("name", PAGES)
def test_charts_are_there_named_and_legible(opens: Opens, pages: dict[str, Path], name: str) -> None:
    for size in ("phone", "desktop"):
        page = opens(pages[name].as_uri(), size=size).page
        assert page.locator("svg.chart").count() >= 4
        assert page.evaluate(NAMELESS) == 0
        assert page.evaluate(SMALL) == 0
        assert page.evaluate(CUT) == []


def test_numbers_open_by_keyboard(opens: Opens, pages: dict[str, Path]) -> None:
    seen = opens(pages["run"].as_uri(), size="phone")
    seen.page.locator("figure summary").first.focus()
    seen.page.keyboard.press("Enter")
    assert seen.page.locator("figure details[open] table").count() == 1
    seen.page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    assert seen.overflow() == []
    assert seen.violations() == []


def test_colours_follow_the_scheme_and_paper_is_white(opens: Opens, pages: dict[str, Path]) -> None:
    ink = "getComputedStyle(document.querySelector('svg.chart text')).fill"
    light, dark = (opens(pages["run"].as_uri(), dark=dark).page for dark in (False, True))
    assert light.evaluate(ink) != dark.evaluate(ink)
    dark.emulate_media(media="print")
    assert dark.evaluate(ink) == "rgb(0, 0, 0)"
    assert dark.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"
