"""A folder is gone on with only by what made it, and the first difference is named in full."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vqgan.errors import ConfigError
from vqgan.files.continued import first_difference, go_on_with

MADE = {"format": 1, "reading": {"resolution": 64, "fps": None}, "when": "today"}


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}, ("a.c", 2, 3)),
        ({"a": {"b": 1}}, {"a": 1}, ("a", {"b": 1}, 1)),
        ({"a": {}}, {"a": {"b": None}}, None),  # a key that is new and says nothing
        (1, 2, ("", 1, 2)),
    ],
)
def test_the_first_difference_has_its_full_key(before: Any, now: Any, expected: Any) -> None:
    assert first_difference(before, now) == expected


def test_a_folder_is_gone_on_with_by_what_made_it(tmp_path: Path) -> None:
    file = tmp_path / "manifest.json"
    for description in (MADE, {**MADE, "when": "tomorrow"}):
        go_on_with(file, description, ("format", "reading"), "encode")
        assert '"today"' in file.read_text(), "what is there stays"
    other = {**MADE, "reading": {"resolution": 128, "fps": None}}
    with pytest.raises(ConfigError, match=r"holds what vqgan encode wrote in another way: resolution was 64 and"):
        go_on_with(file, other, ("format", "reading"), "encode")


@pytest.mark.parametrize("content", [b"[]", b"", b"\xff", b'{"format": 1}', b'{"a":' * 10**5])
def test_what_something_else_wrote_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(ConfigError, match=r"manifest.json is damaged, or is not one that vqgan shard writes \("):
        go_on_with(tmp_path / "manifest.json", MADE, ("format", "reading"), "shard")
