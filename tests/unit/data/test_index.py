"""What was learned of files is kept, used again, and never believed of a file that has changed."""

from __future__ import annotations

import os
import sqlite3
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import LIMITS
from tests.unit.video.test_video_file import UNEVEN, Recording
from vqgan.data import BadFiles, Videos
from vqgan.data.reading import files as search
from vqgan.video.file import VideoFile, scan_video


def videos(tmp_path: Path, **values: Any) -> Videos:
    settings: dict[str, Any] = {
        "root": str(tmp_path / "videos"), "val_root": None, "val_fraction": 0.5, "validation_clips": 2,
        "resolution": 16, "crop": "center", "flip": False, "batch_size": 1, "workers": 0,
        "max_bad_fraction": 1.0, "max_bad_files": 9, "limits": LIMITS, "clip_frames": 4, "stride": 1, "fps": None,
        "index": str(tmp_path / "cache" / "index.sqlite"),
    }  # fmt: skip
    return Videos(**{**settings, **values})


@pytest.fixture
def tree(tmp_path: Path) -> list[Path]:
    """Three good videos, old enough to be believed, and a text."""
    (tmp_path / "videos").mkdir()
    paths = [Recording().write_numbers(tmp_path / "videos", 12).rename(tmp_path / "videos" / f"{n}.mp4") for n in "abc"]
    (tmp_path / "videos" / "text.mp4").write_text("no video")
    for path in (tmp_path / "videos").iterdir():
        os.utime(path, (1_700_000_000, 1_700_000_000))
    return paths


def scanned(data: Videos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], list[str], str]:
    """Which files were looked into, which were bad, and the fingerprint of the usable ones."""
    looked_into: list[str] = []

    def scan(path: Path) -> Any:
        looked_into.append(path.name)
        return scan_video(path)

    monkeypatch.setattr(Videos, "kind", replace(Videos.kind, scan=scan))
    bad_files = BadFiles(tmp_path / "bad.jsonl", 1.0, 9)
    data.datasets(bad_files)
    return looked_into, [Path(path).name for path in bad_files.reasons], data.fingerprint


def test_a_file_is_looked_into_once(tmp_path: Path, tree: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    first = scanned(videos(tmp_path), tmp_path, monkeypatch)
    assert first[0] == ["a.mp4", "b.mp4", "c.mp4", "text.mp4"]
    again = scanned(videos(tmp_path, clip_frames=2), tmp_path, monkeypatch)
    assert again == (["text.mp4"], first[1], first[2]), "what cannot be used may have been mended by other means"


def test_what_a_configuration_asks_for_is_not_kept(
    tmp_path: Path, tree: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    scanned(videos(tmp_path), tmp_path, monkeypatch)
    tree[0].unlink()
    Recording().write_numbers(tmp_path / "videos", 40).rename(tree[0])
    bad = scanned(videos(tmp_path, clip_frames=20), tmp_path, monkeypatch)[1]
    assert sorted(bad) == ["b.mp4", "c.mp4", "text.mp4"]
    assert scanned(videos(tmp_path), tmp_path, monkeypatch)[1] == ["text.mp4"]


@pytest.mark.parametrize("change", ["size", "time"])
def test_a_file_that_changed_is_looked_into_again(
    tmp_path: Path, tree: list[Path], monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    scanned(videos(tmp_path), tmp_path, monkeypatch)
    if change == "size":
        tree[1].write_bytes(tree[1].read_bytes() + b"\0" * 8)
    os.utime(tree[1], (1_700_000_000 + (change == "time"), 1_700_000_000 + (change == "time")))
    assert scanned(videos(tmp_path), tmp_path, monkeypatch)[0] == ["b.mp4", "text.mp4"]


def test_a_file_that_may_still_be_written_is_not_believed(
    tmp_path: Path, tree: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    tree[2].touch()
    scanned(videos(tmp_path), tmp_path, monkeypatch)
    assert scanned(videos(tmp_path), tmp_path, monkeypatch)[0] == ["c.mp4", "text.mp4"]


def test_an_interrupted_scan_keeps_what_it_knows(
    tmp_path: Path, tree: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(path: Path) -> Any:
        if path.name == "c.mp4":
            raise KeyboardInterrupt
        return scan_video(path)

    monkeypatch.setattr(Videos, "kind", replace(Videos.kind, scan=interrupted))
    with pytest.raises(KeyboardInterrupt):
        videos(tmp_path).datasets(BadFiles(tmp_path / "bad.jsonl", 1.0, 9))
    assert scanned(videos(tmp_path), tmp_path, monkeypatch)[0] == ["c.mp4", "text.mp4"]


@pytest.mark.parametrize("damage", ["no database", "another table", "a folder", "damaged contents"])
def test_an_index_that_cannot_be_used_costs_a_warning_at_most(
    tmp_path: Path, tree: list[Path], monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    file = tmp_path / "cache" / "index.sqlite"
    expected = scanned(videos(tmp_path), tmp_path, monkeypatch)
    if damage == "no database":
        file.write_bytes(b"no database, but long enough to be taken for one" * 100)
    elif damage == "a folder":
        file.unlink()
        file.mkdir()
    else:
        with sqlite3.connect(file) as connection:
            connection.execute("drop table files" if damage == "another table" else "update files set content = x'00'")
            if damage == "another table":
                connection.execute("create table files (name text)")
        connection.close()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert scanned(videos(tmp_path), tmp_path, monkeypatch) == expected
    found = [str(warning.message) for warning in said]
    assert [text.startswith(f"data.index={file} cannot be used") for text in found] == [True] * (
        damage != "damaged contents"
    )


@pytest.mark.parametrize("recording", [Recording(b_frames=3), Recording(suffix="mkv", times=UNEVEN)])
def test_what_is_unpacked_is_what_was_packed(tmp_path: Path, recording: Recording) -> None:
    video, _ = scan_video(recording.write_numbers(tmp_path, 40))
    again = VideoFile.unpack(video.path, video.pack())
    for name in video.__dataclass_fields__:
        a, b = getattr(video, name), getattr(again, name)
        assert np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b, name
    assert len(video.pack()) < 40 * 8
    for damaged in (b"", b"x", video.pack()[:-9]):
        with pytest.raises(ValueError, match="damaged"):
            VideoFile.unpack(video.path, damaged)


def test_without_an_index_nothing_is_kept(tmp_path: Path, tree: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        assert len(scanned(videos(tmp_path, index=None), tmp_path, monkeypatch)[0]) == 4
    assert not (tmp_path / "cache").exists()
    assert search.Index(None, "x").connection is None
