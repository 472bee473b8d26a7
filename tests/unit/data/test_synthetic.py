"""The synthetic videos: made once, never half, and the same each time."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import LIMITS
from vqgan.data import BadFiles, SyntheticVideos
from vqgan.data import synthetic as synthetic_module
from vqgan.data.synthetic import draw_video
from vqgan.errors import InvalidValueError, StorageError
from vqgan.video.file import scan_video
from vqgan.video.reader import read_frames


def synthetic(root: Path | str, **changes: Any) -> SyntheticVideos:
    settings: dict[str, Any] = {
        "root": str(root), "val_root": None, "val_fraction": 0.2, "validation_clips": 4, "resolution": 32,
        "clip_frames": 4, "stride": 1, "fps": None, "crop": "random", "flip": True, "batch_size": 2, "workers": 0,
        "max_bad_fraction": 0.0, "max_bad_files": 0, "limits": LIMITS, "videos": 5, "video_frames": 12,
    }  # fmt: skip
    return SyntheticVideos(**{**settings, **changes})


def contents(root: Path) -> dict[str, tuple[int, bytes]]:
    """Each file's time of writing and bytes."""
    files = [path for path in root.rglob("*") if path.is_file()]
    return {str(path.relative_to(root)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def test_they_are_made_once_and_used_again(tmp_path: Path) -> None:
    synthetic(tmp_path / "cache")
    made = contents(tmp_path / "cache")
    assert len(made) == 5
    synthetic(tmp_path / "cache")
    assert contents(tmp_path / "cache") == made


def test_they_are_the_same_wherever_they_are_made(tmp_path: Path) -> None:
    made, elsewhere = [], []
    for name in "abcdef":
        elsewhere.append(np.random.default_rng().random(10_000 + len(elsewhere)))  # memory is not where it was before
        synthetic(tmp_path / name)
        made.append({file: content for file, (_, content) in contents(tmp_path / name).items()})
    assert all(one == made[0] for one in made)


@pytest.mark.parametrize("change", [{"videos": 4}, {"video_frames": 13}, {"resolution": 48}])
def test_other_numbers_are_other_videos(change: dict[str, int], tmp_path: Path) -> None:
    first, other = synthetic(tmp_path), synthetic(tmp_path, **change)
    assert first.root != other.root
    video, _ = scan_video(min(Path(other.root).iterdir()))
    side = change.get("resolution", 32)
    assert (len(video.pts), video.width, video.height) == (change.get("video_frames", 12), side, side)
    assert len(list(Path(other.root).iterdir())) == change.get("videos", 5)


def test_they_are_data_like_any_other(tmp_path: Path) -> None:
    data = synthetic(tmp_path / "cache")
    train, validation = data.datasets(BadFiles(tmp_path / "bad_files.jsonl", 0.0, 0))
    assert len(train) + len(validation) == 5 * 3
    assert train[0].shape == (4, 32, 32, 3)
    assert not (tmp_path / "bad_files.jsonl").exists()


def test_they_are_lively_and_differ(tmp_path: Path) -> None:
    data = synthetic(tmp_path)
    clips = [read_frames(scan_video(path)[0], np.arange(12), 32).astype(int) for path in Path(data.root).iterdir()]
    for clip in clips:
        assert clip.std() > 20
        assert np.abs(np.diff(clip, axis=0)).mean() > 1
    assert all(np.abs(a - b).mean() > 10 for n, a in enumerate(clips) for b in clips[:n])
    drawn = draw_video(3, 12, 32)
    stored = read_frames(scan_video(Path(data.root) / "003.mp4")[0], np.arange(12), 32)
    assert np.abs(stored.mean(axis=3) - drawn.mean(axis=3)).mean() < 6  # colour has half the pixels


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, OSError])
def test_an_interruption_leaves_nothing_half_made(
    error: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = synthetic_module.write_video

    def interrupted(path: Path, *arguments: Any) -> None:
        if path.name == "003.mp4":
            raise error
        write(path, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(synthetic_module, "write_video", interrupted)
        with pytest.raises((error, StorageError)):
            synthetic(tmp_path)
    assert list(tmp_path.iterdir()) == []
    synthetic(tmp_path)
    assert len(contents(tmp_path)) == 5


def test_two_processes_may_make_them_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=synthetic, args=(tmp_path / "cache",)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len(list((tmp_path / "cache").iterdir())) == 1
    assert {Path(name).name for name in contents(tmp_path / "cache")} == {f"{number:03d}.mp4" for number in range(5)}


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=f"data.root={tmp_path / 'file'}.*File exists") as error:
        synthetic(tmp_path / "file")
    assert error.value.exit_code == 5


def test_the_home_folder_can_be_written_as_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Path(synthetic("~/cache").root).parent == tmp_path / "cache"
    assert len(contents(tmp_path / "cache")) == 5


@pytest.mark.parametrize(("key", "value"), [("videos", 1), ("video_frames", 3), ("resolution", 33)])
def test_values_out_of_range_are_refused_by_their_key(key: str, value: int, tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match=f"^{key} must be"):
        synthetic(tmp_path, **{key: value})
    assert list(tmp_path.iterdir()) == []
