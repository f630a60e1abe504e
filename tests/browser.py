"""Headless Chromium for tests of pages, and the pages that it opens."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser; the test is skipped without one."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    if CHROMIUM is None:
        pytest.skip("needs Chromium (on Debian: apt install chromium)")
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield launched
        launched.close()


@contextmanager
def opened(browser: Any, path: Path, scheme: str, width: int = 1200, height: int = 1100) -> Iterator[Any]:
    """A file open in a tab, which must ask for nothing else and report no problem."""
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": height})
    page, problems, requests = context.new_page(), list[str](), list[str]()
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.as_uri())
    yield page
    assert problems == []
    assert [url for url in requests if not url.startswith("data:")] == [path.as_uri()]
    context.close()


def fits(page: Any) -> bool:
    """Whether a page needs no scrolling to the side, and all its pictures are shown."""
    return bool(
        page.evaluate(
            "document.documentElement.scrollWidth <= innerWidth && [...document.images].every(i => i.naturalWidth > 0)"
        )
    )


def contrast(page: Any, selector: str) -> float:
    """Contrast of an element's text with what is behind it, by WCAG; 4.5 is enough for texts."""
    return float(
        page.evaluate(
            """selector => {
        const element = document.querySelector(selector);
        const rgb = text => text.match(/[\\d.]+/g).map(Number);
        let behind = element, back;
        do { back = rgb(getComputedStyle(behind).backgroundColor); behind = behind.parentElement; }
        while (behind && back.length === 4 && back[3] === 0);
        const light = ([r, g, b]) => [r, g, b].map(c => c / 255)
            .map(c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
            .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
        const [high, low] = [light(rgb(getComputedStyle(element).color)), light(back)].sort((a, b) => b - a);
        return (high + 0.05) / (low + 0.05);
    }""",
            selector,
        )
    )
