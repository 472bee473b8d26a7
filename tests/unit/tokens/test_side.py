"""Numbers beside a video follow its frames into the token folder, and what does not fit is refused by name."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vqgan.tokens
from tests.support.tokenizers import random_tokenizer
from tests.unit.video.test_video_file import Recording
from vqgan.errors import DataError, UnusableError
from vqgan.tokenizer.encode import encoding_with
from vqgan.tokenizer.encode_folder import FolderEncoder
from vqgan.tokens.side import read_beside, read_side, write_side


def frame_numbers(count: int) -> np.ndarray:
    """Rows that say which frame they are of."""
    return np.stack([np.arange(count), -np.arange(count)], 1).astype(np.float32)


def encode(videos: Path, out: Path, **values: Any) -> str:
    encoding = encoding_with(values)
    encoding.device, encoding.workers, encoding.index = "cpu", 0, None
    return FolderEncoder(random_tokenizer(), encoding, videos, out).run()


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """21 frames, 24 a second, with a row of numbers for each."""
    made = Recording(b_frames=2).write_numbers(tmp_path, 21, 64, 48)
    (tmp_path / "videos").mkdir()
    made = made.rename(tmp_path / "videos" / "a.mp4")
    np.save(tmp_path / "videos" / "a.npy", frame_numbers(21))
    return made


@pytest.mark.parametrize(
    ("values", "frames"),
    [
        ({}, range(21)),
        ({"stride": 2}, range(0, 21, 2)),
        ({"stride": 4, "batch_frames": 5}, range(0, 21, 4)),
        ({"fps": 8.0}, range(0, 21, 3)),
        ({"fps": 48.0}, [n // 2 for n in range(41)]),
    ],
)
def test_rows_follow_the_frames(values: dict[str, Any], frames: Any, video: Path, tmp_path: Path) -> None:
    encode(video.parent, tmp_path / "tokens", **values)
    (found,) = vqgan.tokens.open(tmp_path / "tokens")
    np.testing.assert_array_equal(found.side, frame_numbers(21)[list(frames)])
    assert len(found.side) == len(found.codes)
    alone = random_tokenizer().encode_video(video, **values)
    np.testing.assert_array_equal(alone.side, found.side)


def test_clips_take_their_rows_along(video: Path, tmp_path: Path) -> None:
    encode(video.parent, tmp_path / "tokens")
    clips = vqgan.tokens.open(tmp_path / "tokens").clips(3, stride=2)
    assert [clips.side(n)[:, 0].tolist() for n in range(len(clips))] == [
        [5 * n, 5 * n + 2, 5 * n + 4] for n in range(4)
    ]


def test_a_video_without_numbers_has_none(video: Path, tmp_path: Path) -> None:
    video.with_suffix(".npy").unlink()
    encode(video.parent, tmp_path / "tokens")
    tokens = vqgan.tokens.open(tmp_path / "tokens")
    assert tokens[0].side is None
    assert tokens.clips(2).side(0) is None


def test_what_does_not_fit_is_refused_by_name(video: Path, tmp_path: Path) -> None:
    other = Recording().write_numbers(tmp_path, 5, 64, 48)
    other.rename(video.with_name("b.mp4"))
    for wrong in (20, 22):
        np.save(video.with_suffix(".npy"), frame_numbers(wrong))
        out = tmp_path / f"tokens{wrong}"
        said = encode(video.parent, out)
        assert said.startswith("1 video encoded, 1 cannot be used"), said
        assert vqgan.tokens.open(out).paths == ["b.mp4"]
        (bad,) = [json.loads(line) for line in (out / "bad_files.jsonl").read_text().splitlines()]
        assert Path(bad["path"]).name == "a.mp4"
        assert bad["reason"] == f"its side data a.npy has {wrong} rows for 21 frames"
    with pytest.raises(DataError, match=r"a.mp4 cannot be encoded: its side data a.npy has 22 rows for 21 frames"):
        random_tokenizer().encode_video(video)


class Harm:
    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("code of a stranger was run",)


@pytest.mark.parametrize("content", ["text", "object", "pickle", "empty", "scalar", "words", "zip", "cut"])
def test_what_is_no_array_of_numbers_is_refused(content: str, tmp_path: Path) -> None:
    file = tmp_path / "a.npy"
    if content == "text":
        file.write_text("1 2 3")
    elif content == "pickle":
        file.write_bytes(pickle.dumps(Harm()))
    elif content == "empty":
        file.touch()
    elif content == "zip":
        with file.open("wb") as new:
            np.savez(new, a=np.zeros(3))
    elif content == "cut":
        np.save(file, np.zeros((3, 100)))
        file.write_bytes(file.read_bytes()[:-1])
    else:
        arrays = {"object": np.array([Harm()] * 3), "scalar": np.array(3), "words": np.array(["a", "b", "c"])}
        np.save(file, arrays[content], allow_pickle=True)
    with pytest.raises(UnusableError, match=r"its side data a.npy cannot be read"):
        read_beside(tmp_path / "a.mp4", 3, False)


def test_a_video_that_is_cut_off_may_have_more_rows(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", frame_numbers(5))
    assert read_beside(tmp_path / "a.mp4", 3, True) is not None
    with pytest.raises(UnusableError, match="5 rows for 3 frames"):
        read_beside(tmp_path / "a.mp4", 3, False)
    with pytest.raises(UnusableError, match="5 rows for 6 frames"):
        read_beside(tmp_path / "a.mp4", 6, True)


def test_rows_of_an_earlier_try_do_not_stay(tmp_path: Path) -> None:
    write_side(tmp_path, "more/a.mp4", frame_numbers(3).astype(">f4"))
    found = read_side(tmp_path, "more/a.mp4", 3)
    assert found is not None
    assert found.dtype == np.dtype("<f4")
    with pytest.raises(DataError, match="3 rows for 4 frames"):
        read_side(tmp_path, "more/a.mp4", 4)
    write_side(tmp_path, "more/a.mp4", None)
    assert read_side(tmp_path, "more/a.mp4", 3) is None
