"""Files that are written whole: what kills leave aside goes, and what is being written stays."""

from __future__ import annotations

import os
import time
from pathlib import Path

from vqgan.files.writing import replace_text


def test_what_a_kill_has_left_of_a_text_goes_when_it_is_written_again(tmp_path: Path) -> None:
    left, other, young = (
        tmp_path / f".{name}.0123456789abcde{n}" for n, name in enumerate(["a[1].txt", "b", "a[1].txt"])
    )
    for file in (left, other, young):
        file.write_text("part")
    for file in (left, other):
        os.utime(file, (time.time() - 7200,) * 2)
    replace_text(tmp_path / "a[1].txt", "whole")
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "a[1].txt", other, young])
