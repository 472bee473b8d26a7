"""A browser for the tests that look at pages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser import CHROMIUM, DESKTOP, PHONE, Open, is_remote


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def opened(browser: Any) -> Iterator[Open]:
    """Open a file; in the end nothing was said on the console, and nothing asked of a network."""
    complaints: list[str] = []
    contexts = []

    def open_file(file: Path, size: tuple[int, int] = DESKTOP, scheme: str = "light") -> Any:
        phone = size == PHONE
        context = browser.new_context(
            viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, is_mobile=phone, has_touch=phone
        )
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("dialog", lambda dialog: (complaints.append("a dialog"), dialog.dismiss()))
        tab.on("request", lambda request: complaints.append(request.url) if is_remote(request.url) else None)
        tab.goto(file.as_uri())
        tab.wait_for_selector("footer")
        return tab

    yield open_file
    for context in contexts:
        context.close()
    assert complaints == []
