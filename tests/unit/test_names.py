"""Every name is defined, but for axes in annotations of shapes, for whose sake the linter's own check is off."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def undefined(*paths: Path) -> list[str]:
    """Places of names that nothing defines and that do not stand within quotes."""
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select=F821", "--output-format=json"]
    said = subprocess.run([*command, *map(str, paths)], capture_output=True, text=True, check=False).stdout
    found = []
    for finding in json.loads(said):
        name = finding["message"].split("`")[1]
        row = finding["location"]["row"]
        line = Path(finding["filename"]).read_text(encoding="utf-8").splitlines()[row - 1]
        if not re.search(rf'"[^"]*\b{name}\b[^"]*"', line):
            found.append(f"{finding['filename']}:{row}: {name}")
    return found


def test_every_name_is_defined() -> None:
    assert undefined(*(ROOT / name for name in ("vqgan", "tests", "bench", "train.py"))) == []


def test_a_name_that_is_not_defined_is_found(tmp_path: Path) -> None:
    (tmp_path / "part.py").write_text('def f(x: Float[Tensor, "rows"]) -> int:\n    return len(missing)\n')
    assert [place.rpartition(" ")[2] for place in undefined(tmp_path)] == ["Float", "Tensor", "missing"]
