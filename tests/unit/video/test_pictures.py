"""Pictures of reconstructions: whole, whatever their number and size."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from vqgan.errors import StorageError
from vqgan.video import pictures
from vqgan.video.pictures import write_middle_frames, write_moving, write_pictures


def grey(count: int, side: int, frames: int = 2) -> Tensor:
    """Clips of one brightness each."""
    values = torch.arange(count) * 250 // max(1, count - 1)
    return values.to(torch.uint8).reshape(-1, 1, 1, 1, 1).expand(count, frames, side, side, 3)


def first_frame(file: Path) -> np.ndarray:
    with av.open(str(file)) as container:
        return next(container.decode(video=0)).to_ndarray(format="gray")


@pytest.mark.parametrize(("count", "lines", "in_a_line"), [(3, 1, 3), (130, 2, 65)])
def test_more_pictures_than_a_video_is_wide_are_shown_in_lines(
    count: int, lines: int, in_a_line: int, tmp_path: Path
) -> None:
    clips = grey(count, 128)
    files = write_pictures(tmp_path, 7, clips, 255 - clips)
    with Image.open(files["reconstructions/frames"]) as picture:
        assert picture.size == (count * 128, 2 * 128)
    shown = first_frame(files["reconstructions/clips"]).astype(int)
    assert shown.shape == (lines * 2 * 128, in_a_line * 128)
    for number, clip in enumerate(clips):
        line, place = divmod(number, in_a_line)
        original, reconstruction = shown[line * 256 + 64, place * 128 + 64], shown[line * 256 + 192, place * 128 + 64]
        value = int(clip[0, 0, 0, 0])
        assert original == pytest.approx(value, abs=4)
        assert reconstruction == pytest.approx(255 - value, abs=4)


def test_what_a_video_cannot_hold_is_left_out_of_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pictures, "LARGEST_VIDEO", 1024)
    files = write_pictures(tmp_path, 0, grey(9, 256), grey(9, 256))
    assert first_frame(files["reconstructions/clips"]).shape == (2 * 2 * 256, 3 * 256)


@pytest.mark.parametrize(
    ("frames", "side", "size"), [(3, 64, (192, 128)), (3, 512, (768, 512)), (100, 256, (16383, 326))]
)
def test_long_clips_of_large_frames_are_shown_smaller(
    frames: int, side: int, size: tuple[int, int], tmp_path: Path
) -> None:
    clip = grey(1, side, frames)[0]
    write_moving(tmp_path / "moving.webp", clip, 255 - clip)
    with Image.open(tmp_path / "moving.webp") as picture:
        assert picture.size == size


def test_a_picture_is_never_there_in_part(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_middle_frames(tmp_path / "worst.png", grey(2, 32), grey(2, 32))
    before = (tmp_path / "worst.png").read_bytes()
    outside = tmp_path / "outside"
    outside.write_text("text")
    (tmp_path / ".worst.png.part").symlink_to(outside)

    def full(self: Image.Image, file: Path, *_: object) -> None:
        file.write_bytes(b"part")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Image.Image, "save", full)
        with pytest.raises(StorageError, match=r"worst.png cannot be written: No space"):
            write_middle_frames(tmp_path / "worst.png", grey(3, 32), grey(3, 32))
    assert (tmp_path / "worst.png").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outside", "worst.png"]
    assert outside.read_text() == "text"
