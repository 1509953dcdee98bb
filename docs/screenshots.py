"""Takes the pictures of docs/viewer.md from the trace of a real run, in a real browser.

    python docs/screenshots.py

The browser is Debian's Chromium; requirements/browser.txt has what drives it.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from helium_agents.viewer.page import page
from helium_agents.viewer.runs import ViewedRuns

_DOCS = Path(__file__).parent
_TRACE = _DOCS / "reflection.trace"
_IMAGES = _DOCS / "images"


def main() -> None:
    """Write both pictures."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = Path(folder, "page.html")
        runs = ViewedRuns([_TRACE])
        path.write_text(page({name: runs.get(name) for name in runs.every}), "utf-8")
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        _take(browser, path, "rows", "light", 1280, 1130)
        _take(browser, path, "timeline", "dark", 820, 1200)
        browser.close()


def _take(browser: Browser, path: Path, tab: str, scheme: str, width: int, height: int) -> None:
    """A picture of the page with one of its tabs open, and of the rows a call."""
    dark = "dark" if scheme == "dark" else "light"
    shown = browser.new_page(viewport={"width": width, "height": height}, color_scheme=dark)
    shown.goto(path.as_uri())
    shown.wait_for_selector("body[data-ready]")
    shown.click(f"#tab-{tab}")
    if tab == "rows":
        shown.locator("#row-graph .box").nth(3).click()
        shown.wait_for_selector("#details .message")
        shown.evaluate("scrollTo(0, 0)")
    else:
        shown.evaluate("document.querySelector('.tabs').scrollIntoView()")
    shown.mouse.move(0, 0)
    shown.screenshot(path=_IMAGES / f"viewer_{tab}.png")
    shown.close()


if __name__ == "__main__":
    main()
