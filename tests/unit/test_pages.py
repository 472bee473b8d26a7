"""The pages that hold figures and pictures of real runs say where these come from."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vqgan.config.build import conf_dir

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
FAILURES = (DOCS / "failures.md").read_text(encoding="utf-8")
RESULTS = (DOCS / "results.md").read_text(encoding="utf-8")


def test_every_case_has_its_picture_and_its_own_words() -> None:
    cases: dict[str, Any] = runpy.run_path(str(DOCS / "failures.py"))["CASES"]
    shown = re.findall(r"\(failures/(\w+)\.png\)\n\n> ([^\n]+)\n", FAILURES)
    assert {name for name, _ in shown} == cases.keys() - {"healthy"}
    for name, _ in shown:
        file = DOCS / "failures" / f"{name}.png"
        with Image.open(file) as picture:
            picture.verify()
        assert file.stat().st_size < 60_000
        section = next(part for part in FAILURES.split("\n## ") if f"failures/{name}.png" in part)
        made_by = section.partition("**Made by**")[2].partition("**What shows it**")[0]
        typed = " ".join(re.findall(r"`([^`]+)`", made_by)).split() or ["data.flip=false"]
        assert all(word in cases[name][0].split() for word in typed), (name, typed)


def test_what_a_run_said_takes_the_place_of_what_stood_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = runpy.run_path(str(DOCS / "failures.py"))
    page = tmp_path / "failures.md"
    page.write_text("![a](failures/grey.png)\n\n> before\n\n![b](failures/collapse.png)\n\n> other\n")
    script["quote"].__globals__["PAGE"] = page
    script["quote"]("grey", r"Only 1 \1 of them.")
    assert (
        page.read_text()
        == "![a](failures/grey.png)\n\n> Only 1 \\1 of them.\n\n![b](failures/collapse.png)\n\n> other\n"
    )


def test_results_name_recipes_that_there_are_and_commits() -> None:
    for name in re.findall(r"(?:experiment=|`)((?:small|video|f16)\w*)`", RESULTS):
        assert (conf_dir() / "experiment" / f"{name}.yaml").is_file(), name
    rows = [line.strip("| ").split(" | ") for line in RESULTS.splitlines() if re.match(r"\| .*\d\.\d", line)]
    assert len(rows) > 10
    for row in rows:
        assert re.fullmatch("[0-9a-f]{7}", row[-1]), row


def test_links_of_the_pages_lead_somewhere() -> None:
    for page in (*DOCS.glob("*.md"), ROOT / "README.md"):
        prose = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for link in re.findall(r"\]\(((?!https?:|#)[^)#]+)", prose):
            assert (page.parent / link).exists(), (page.name, link)
