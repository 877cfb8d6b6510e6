"""The page of `statprune explore`, as a person sees it: moved, restricted, compressed from, and read."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import statprune
from statprune.demo import CALIBRATION, MODEL
from tests.browser.conftest import Opens
from tests.browser.seen import Seen
from tests.saved import save_tiny, sentences

pytest.importorskip("gradio")
pytestmark = pytest.mark.audit

SLOW = 120_000
COMMAND = "document.querySelector('#command textarea').value"


def started(plan: Path, folder: Path) -> tuple[subprocess.Popen[str], str]:
    """The command, and the address that it prints."""
    process = subprocess.Popen(
        [sys.executable, "-m", "statprune", "explore", str(plan), "--no-browser", "--json"],
        stdout=subprocess.PIPE,
        cwd=folder,
        encoding="utf-8",
    )
    told = ""
    for line in process.stdout:
        told += line
        if line.startswith("}"):
            break
    return process, json.loads(told)["url"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("explored")
    statprune.plan(
        MODEL, data=str(CALIBRATION), out=made / "measured", seq_len=256, samples=32, latency=False
    )
    return made


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    process, url = started(folder / "measured", folder)
    yield url
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0


def shown(opens: Opens, url: str, **how: object) -> Seen:
    seen = opens(url, **how)
    seen.page.set_default_timeout(SLOW)
    seen.page.wait_for_selector("#damage svg")
    seen.page.wait_for_selector("#widths svg")
    return seen


def move(seen: Seen, keep: str) -> None:
    """Type a share into the slider's box, as its handle would."""
    box = seen.page.locator("#keep input[type=number]")
    box.fill(keep)
    box.press("Enter")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", ["phone", "desktop"])
def test_nothing_is_wrong_with_the_page(opens: Opens, url: str, size: str, dark: bool) -> None:
    seen = shown(opens, url, size=size, dark=dark)
    seen.page.click("text=Floors, pins and protected blocks")
    seen.page.wait_for_selector("text=Set floor")
    seen.page.click("text=Widths as a table")
    assert (seen.errors, seen.elsewhere, seen.overflow(), seen.violations()) == ([], [], [], [])
    for chart in seen.page.locator("svg[role=img]").all():
        assert len(chart.get_attribute("aria-label") or "") > 20
    assert seen.page.locator("#widths svg[role=img]").count() == 2


def test_numbers_follow_the_slider_and_another_tab_does_not(opens: Opens, url: str) -> None:
    one, two = shown(opens, url), shown(opens, url)
    before = two.page.inner_text("#numbers")
    numbers, charts = one.page.inner_text("#numbers"), one.page.inner_html("#damage")
    slider = one.page.locator("#keep input[type=range]")
    slider.focus()
    for _ in range(10):
        slider.press("ArrowLeft")
    one.page.wait_for_function(f"{COMMAND}.includes('--keep 0.7 ')")
    assert one.page.inner_text("#numbers") != numbers
    assert one.page.inner_html("#damage") != charts
    assert two.page.inner_text("#numbers") == before
    move(one, "0.03")
    one.page.wait_for_selector("#numbers .refused")
    assert "cannot be reached" in one.page.inner_text("#numbers")
    assert (one.page.input_value("#command textarea"), one.violations()) == ("", [])
    move(one, "0.8")
    one.page.wait_for_function(f"{COMMAND}.includes('--keep 0.8 ')")
    one.page.click("text=Floors, pins and protected blocks")
    one.page.click("text=Set floor")
    one.page.wait_for_function(f"{COMMAND}.includes('--floor=blocks.0.attention=1')")


def test_a_compression_is_started_watched_and_read(opens: Opens, url: str, folder: Path) -> None:
    one, two = shown(opens, url), shown(opens, url)
    move(one, "0.6")
    one.page.click("#start")
    one.page.wait_for_selector("#progress .refused")
    assert "no output folder" in one.page.inner_text("#progress")
    for seen in (one, two):
        seen.page.locator("#out textarea, #out input").fill("made")
        seen.page.wait_for_function(f"{COMMAND}.endsWith('--out made')")
    one.page.click("#start")
    one.page.wait_for_selector("#progress progress")
    two.page.click("#start")
    two.page.wait_for_selector("#progress .refused")
    assert "is being written" in two.page.inner_text("#progress")
    one.page.wait_for_selector("text=damage measured")
    assert (folder / "made" / "config.json").exists()
    one.page.locator("#prompt textarea").fill("Once upon a time")
    one.page.click("#write")
    one.page.wait_for_function("document.querySelector('#after textarea').value.length > 16")
    texts = [one.page.input_value(f"#{each} textarea") for each in ("before", "after")]
    assert all(text.startswith("Once upon a time") for text in texts)
    assert texts[0] != texts[1]
    assert (one.errors, one.elsewhere, one.overflow(), one.violations()) == ([], [], [], [])


def test_a_compression_can_be_cancelled_and_outlives_its_tab(opens: Opens, url: str, folder: Path) -> None:
    one, two = shown(opens, url), shown(opens, url)
    for seen, name in ((one, "ended"), (two, "outlives")):
        seen.page.locator("#out textarea, #out input").fill(name)
        seen.page.wait_for_function(f"{COMMAND}.endsWith('--out {name}')")
    one.page.click("#start")
    one.page.wait_for_selector("#progress progress")
    one.page.click("#cancel")  # at once: a run of a few seconds, which has only begun to import
    two.page.click("#start")
    two.page.wait_for_selector("#progress progress")
    two.page.close()
    one.page.wait_for_selector("#progress .refused")
    assert "Cancelled" in one.page.inner_text("#progress")
    for _ in range(SLOW // 500):
        if (folder / "outlives").exists():
            break
        one.page.wait_for_timeout(500)
    assert (folder / "outlives" / "config.json").exists()
    assert not (folder / "ended").exists()


def test_an_encoder_says_why_there_is_no_text(opens: Opens, tmp_path: Path) -> None:
    save_tiny(tmp_path / "bert", "bert")
    statprune.plan(
        tmp_path / "bert", data=sentences(), out=tmp_path / "of", samples=16, seq_len=24, latency=False
    )
    process, url = started(tmp_path / "of", tmp_path)
    try:
        seen = shown(opens, url)
        assert "is an encoder" in seen.page.inner_text("#mute")
        assert seen.page.locator("#write").count() == 0
        assert seen.violations() == []
    finally:
        os.kill(process.pid, signal.SIGTERM)
        process.wait(60)
