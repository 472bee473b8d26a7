"""Looking at a page as a person would: in Chromium, where there is one."""

from __future__ import annotations

import importlib.util
import re
import shutil
from collections.abc import Callable
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
MISSING = CHROMIUM is None or importlib.util.find_spec("playwright") is None
NEEDS = pytest.mark.skipif(MISSING, reason="there is no Chromium, or no Playwright")
Open = Callable[..., Any]
DESKTOP, PHONE = (1280, 800), (390, 844)


def with_browser(test: Any) -> Any:
    """Mark a test that opens a page: skipped where there is no browser, and slow."""
    return pytest.mark.slow(NEEDS(test))


# The colour of an element's text, and that of what is behind it.
COLOURS = """element => {
    let behind = element;
    while (getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)") {
        behind = behind.parentElement ?? document.body;
    }
    return [getComputedStyle(element).color, getComputedStyle(behind).backgroundColor];
}"""


def is_remote(url: str) -> bool:
    return not url.startswith(("file:", "data:", "blob:"))


def see_all(tab: Any) -> None:
    """Wait until all charts are drawn: those that are not in view come one by one."""
    drawn = "charts.length > 0 && charts.every((chart) => !chart.stale && chart.box.querySelector('.main-svg'))"
    for _ in range(300):
        if tab.evaluate(drawn):
            return
        tab.wait_for_timeout(50)
    raise AssertionError("not all charts were drawn")


def settled(tab: Any) -> None:
    """Wait for two frames: charts are drawn again in the next one."""
    tab.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def luminance(colour: str) -> float:
    """Relative luminance of a CSS colour, by WCAG 2."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(a: float, b: float) -> float:
    return (max(a, b) + 0.05) / (min(a, b) + 0.05)
