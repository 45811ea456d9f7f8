"""A browser for the pages that tracer writes: Debian's chromium, without a display."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

__all__ = ["CHROMIUM", "launched", "opened"]

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@contextmanager
def launched() -> Iterator[Any]:
    """A browser; without one the test is skipped."""
    if CHROMIUM is None:
        pytest.skip("no chromium: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(browser: Any, path: Path, place: str = "", **context: Any) -> Iterator[Any]:
    """The page in *path*. That it complained, or asked for anything but itself, fails the test."""
    complaints: list[str] = []
    asked: list[str] = []
    within = browser.new_context(**context)
    page = within.new_page()
    page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(f"dialog: {dialog.message}"))
    page.on("request", lambda request: asked.append(request.url))
    # What is copied is kept for the test: a headless browser has no clipboard of its own.
    page.add_init_script(
        "window.copied = []; Object.defineProperty(navigator, 'clipboard',"
        " { value: { writeText: (text) => { window.copied.push(text); return Promise.resolve(); } } });"
    )
    page.goto(path.as_uri() + place)
    # Not by a function: to poll one, Playwright evaluates it in the page, which forbids that.
    page.wait_for_selector(".arrow-row, #shown:not(:empty)", state="attached")
    yield page
    within.close()
    assert complaints == []
    assert [
        url for url in asked if url.partition("#")[0] != path.as_uri() and not url.startswith("data:")
    ] == []
