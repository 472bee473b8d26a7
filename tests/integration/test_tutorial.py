"""The commands of docs/tutorial.md, at toy size."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_every_command_of_the_page_works_and_its_pictures_are_made(tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "docs" / "tutorial.py", tmp_path / "work", "--toy"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    typed = {line.split()[2] for line in done.stdout.splitlines() if line.startswith("+ vqgan ")}
    assert typed == {"doctor", "train", "compare", "evaluate", "encode", "decode"}
    assert "Tokens('tokens': 6 videos, " in done.stdout
    shown = set(re.findall(r"\(tutorial/(\w+\.png)\)", PAGE))
    assert {path.name for path in (tmp_path / "work" / "pictures").iterdir()} == shown


def test_its_pictures_are_there_and_small() -> None:
    for name in re.findall(r"\((tutorial/\w+\.png)\)", PAGE):
        file = ROOT / "docs" / name
        with Image.open(file) as picture:
            picture.verify()
        assert file.stat().st_size < 400_000
