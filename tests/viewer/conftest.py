"""A real Chromium, once for all tests, and pages in it that must not complain."""

from __future__ import annotations

import asyncio
import inspect
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from helium_agents.cli import main
from tests.viewer.traces import write_run

NAMES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """The browser. While it is there, no event loop of ours runs in this thread (`in_thread`)."""
    sync_api = pytest.importorskip("playwright.sync_api")
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("no browser is installed: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def show(chromium: Any) -> Iterator[Callable[..., Any]]:
    """`show(address)` opens a page and waits for the run; in the end none may have complained."""
    complaints: list[str] = []
    contexts = []

    def opened(address: str, **options: Any) -> Any:
        context = chromium.new_context(viewport={"width": 1280, "height": 900}, **options)
        context.set_default_timeout(100_000)  # four others compute meanwhile
        contexts.append(context)
        tab = context.new_page()
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("console", lambda line: line.type != "log" and complaints.append(line.text))
        tab.on("dialog", lambda dialog: complaints.append(f"a dialog: {dialog.message}"))
        tab.goto(address)
        tab.wait_for_selector("body[data-ready]")
        return tab

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture(scope="session")
def traces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `run.trace`, of merged calls and a failed row, and `again.trace`, of others."""
    folder = tmp_path_factory.mktemp("traces")
    in_thread(write_run, folder / "run.trace", range(6))
    in_thread(write_run, folder / "again.trace", [0, 1, 7])
    return folder


def in_thread(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """The result of a function, of a coroutine function too, called in a thread of its own."""

    def call() -> Any:
        found = function(*arguments, **options)
        return asyncio.run(found) if inspect.iscoroutine(found) else found

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result()


def html(*paths: Path) -> str:
    """The address of the file that `helium view --html` writes."""
    out = paths[0].with_suffix(".html")
    arguments = ["view", *map(str, paths), "--html", str(out), "--overwrite"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    return out.as_uri()
