"""Pages as a person sees them: headless Chromium, and axe-core on what it shows.

Tests that take these fixtures are marked audit; `make audit` installs Chromium and the drivers.
"""

import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

import pytest

from tests.browser.seen import Seen

if TYPE_CHECKING:
    from playwright.sync_api import Browser

SIZES = {"phone": (360, 780), "desktop": (1440, 900)}


class Opens(Protocol):
    def __call__(self, url: str, *, size: str = "desktop", dark: bool = False) -> Seen: ...


@pytest.fixture(scope="session")
def browser() -> "Iterator[Browser]":
    """Chromium, as Debian packages it."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - only `make audit` has it

    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert found is not None, "no Chromium here; `make audit` installs it (apt-get install chromium)"
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def opens(browser: "Browser") -> Iterator[Opens]:
    """Open a page at a size of SIZES, light or dark, each in a session of its own."""
    contexts = []

    def opened(url: str, *, size: str = "desktop", dark: bool = False) -> Seen:
        width, height = SIZES[size]
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light"
        )
        contexts.append(context)
        seen = Seen(context.new_page(), url)
        seen.page.goto(url)
        return seen

    yield opened
    for context in contexts:
        context.close()
