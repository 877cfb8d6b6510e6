"""A page in a browser, and what is wrong with it."""

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from playwright.sync_api import Page

SERIOUS = ("serious", "critical")

WIDER = """() => {
  const wide = document.documentElement.clientWidth;
  const inside = (e) => { for (let up = e.parentElement; up; up = up.parentElement) {
    const how = getComputedStyle(up);
    if (['auto', 'scroll', 'hidden', 'clip'].includes(how.overflowX)) return true; } return false; };
  return [...document.body.querySelectorAll('*')]
    .filter(e => { const box = e.getBoundingClientRect();
                   return box.width > 0 && box.right > wide + 1 && !inside(e); })
    .map(e => e.tagName + '.' + e.className + ' to ' + Math.round(e.getBoundingClientRect().right));
}"""


class Seen:
    """A page, the errors its console showed, and the requests that left its origin."""

    def __init__(self, page: "Page", url: str) -> None:
        self.page = page
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._origin = urlsplit(url)[:2]
        page.on("console", lambda told: self.errors.append(told.text) if told.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))

    @property
    def elsewhere(self) -> list[str]:
        """Requests to anything but the page's own origin."""
        inside = ("data", "blob", "about")
        return [
            url
            for url in self.requests
            if urlsplit(url).scheme not in inside and urlsplit(url)[:2] != self._origin
        ]

    def overflow(self) -> list[str]:
        """Elements beyond the right edge of the window, and the page itself if it scrolls there."""
        page = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        beyond: int = self.page.evaluate(page)
        wide: list[str] = self.page.evaluate(WIDER)
        return wide + ([f"the page scrolls sideways by {beyond}"] if beyond > 0 else [])

    def violations(self) -> list[str]:
        """What axe-core finds serious or critical: rule, why, and where."""
        from axe_playwright_python.sync_playwright import Axe  # noqa: PLC0415 - only `make audit` has it

        found: list[dict[str, Any]] = Axe().run(self.page).response["violations"]
        return [
            f"{each['id']} ({each['impact']}): {each['help']}: {[at['target'] for at in each['nodes']][:5]}"
            for each in found
            if each["impact"] in SERIOUS
        ]
