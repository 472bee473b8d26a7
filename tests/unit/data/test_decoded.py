"""Clips that are kept once they have been decoded: the same pixels, in all processes, whatever the memory holds."""

from __future__ import annotations

import dataclasses
import pickle
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import LIMITS
from tests.unit.video.test_video_file import Recording
from vqgan.data import BadFiles, Loader, videos
from vqgan.data.decoded import Decoded
from vqgan.data.images import ImageFile, ImageFolder, scan_image
from vqgan.data.videos import VideoFolder
from vqgan.errors import UnusableError
from vqgan.video.file import scan_video

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is no such memory")
FRAMES = [20, 23, 9]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return [Recording(b_frames=2).write_numbers(tmp_path_factory.mktemp("clips"), count) for count in FRAMES]


def clips(files: list[Path], megabytes: int, stride: int | None = 1, fps: float | None = None) -> VideoFolder:
    return VideoFolder([scan_video(file)[0] for file in files], 32, 4, stride, fps, True, True, megabytes)


def never(*_: object) -> None:
    raise AssertionError("it was decoded again")


@pytest.mark.parametrize(("stride", "fps"), [(1, None), (2, None), (None, 12.0), (None, 60.0)])
def test_clips_are_those_that_are_decoded_each_time(
    stride: int | None, fps: float | None, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    each_time, once = clips(files, 0, stride, fps), clips(files, 64, stride, fps)
    for index in range(len(once)):
        once.read(index, np.random.default_rng(99))
    for seed in range(3):
        expected = [each_time.read(index, np.random.default_rng(seed)) for index in range(len(once))]
        with monkeypatch.context() as patched:
            patched.setattr(videos, "read_frames", never)
            found = [once.read(index, np.random.default_rng(seed)) for index in range(len(once))]
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Of several sizes and formats, two of them on their sides."""
    rng = np.random.default_rng(0)
    turned = Image.Exif()
    turned[0x0112] = 6
    files = []
    for number, (name, size) in enumerate({"a.png": (40, 64), "b.jpg": (50, 33), "c.webp": (32, 32)}.items()):
        files.append(tmp_path / name)
        Image.fromarray(rng.integers(256, size=(*size, 3), dtype=np.uint8)).save(
            files[-1], exif=turned.tobytes() if number else b""
        )
    return files


def of_pictures(files: list[Path], megabytes: int) -> ImageFolder:
    return ImageFolder([scan_image(file)[0] for file in files], 32, True, True, megabytes)


def test_pictures_are_those_that_are_decoded_each_time(pictures: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    each_time, once = of_pictures(pictures, 0), of_pictures(pictures, 1)
    sides = [32 * 51, 48 * 32, 32 * 32]
    assert (each_time.decoded_bytes, once.decoded_bytes) == (0, 3 * sum(sides))
    for seed in range(3):
        expected = [each_time.read(index, np.random.default_rng(seed)) for index in range(3)]
        with monkeypatch.context() as patched:
            if seed:
                patched.setattr(Image, "open", never)
            found = [once.read(index, np.random.default_rng(seed)) for index in range(3)]
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert torch.equal(once[0], each_time[0])


def test_a_picture_that_is_not_what_its_header_says_is_decoded_each_time(pictures: list[Path]) -> None:
    once = ImageFolder([dataclasses.replace(scan_image(pictures[0])[0], width=99)], 32, True, True, 1)
    for seed in range(2):
        expected = of_pictures(pictures, 0).read(0, np.random.default_rng(seed))
        assert torch.equal(once.read(0, np.random.default_rng(seed)), expected)
    assert once.decoded is not None
    assert once.decoded.sums is not None
    assert not once.decoded.sums.any()


def test_pictures_that_do_not_fit_are_decoded_each_time(pictures: list[Path]) -> None:
    assert of_pictures(pictures * 50, 1).decoded_bytes > 2**19
    assert of_pictures(pictures * 200, 1).decoded_bytes == 0
    assert of_pictures([], 1).decoded_bytes == 0


def test_sizes_come_back_from_the_index(pictures: list[Path]) -> None:
    for path in pictures:
        file, _ = scan_image(path)
        assert ImageFile.unpack(path, file.pack()) == file
        with pytest.raises(ValueError, match="damaged"):
            ImageFile.unpack(path, file.pack()[:-1])


def test_what_one_process_decoded_no_other_decodes(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    once, bad_files = clips(files, 64), BadFiles(tmp_path / "bad_files.jsonl", 1.0, 0)
    epoch = len(once)
    assert once.decoded is not None
    with closing(Loader(once, epoch, 2, 7, bad_files, LIMITS).batches(0)) as batches:
        first = next(batches)
        next(batches)  # each of the two processes reads every other batch, so both read all clips
    assert once.decoded.sums.all()
    monkeypatch.setattr(videos, "read_frames", never)
    with closing(Loader(once, epoch, 0, 7, bad_files, LIMITS).batches(0)) as batches:
        assert torch.equal(next(batches), first)
    assert bad_files.reasons == {}


def test_a_corpus_that_does_not_fit_is_decoded_each_time(files: list[Path]) -> None:
    most = clips(files, 64).decoded_bytes
    assert 0.9 < most / (sum(FRAMES) * 32 * 48 * 3) < 1.5  # of 48 × 32 pixels, or of a little more where clips overlap
    assert most < 2**20
    assert clips(files * 20, 1).decoded_bytes == 0
    assert clips(files, 0).decoded_bytes == 0


@pytest.mark.parametrize(("frames", "stride", "kept"), [(17, 5, 8), (20, 5, 20), (16, 5, 4), (9, 2, 9), (7, 1, 7)])
def test_of_frames_between_those_of_any_clip_none_is_kept(frames: int, stride: int, kept: int, tmp_path: Path) -> None:
    file = Recording().write_numbers(tmp_path, frames)
    frame = 43 * 32 * 3  # of 64 × 48, of which the shorter side becomes 32
    assert clips([file], 64, stride).decoded_bytes == kept * frame


def test_an_item_that_cannot_be_decoded_stays_unknown() -> None:
    decoded, item = Decoded([(1, 2, 2, 3), (2, 2, 2, 3)]), np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3)

    def broken() -> np.ndarray:
        raise UnusableError("damaged")

    for _ in range(2):
        with pytest.raises(UnusableError, match="damaged"):
            decoded.take(1, broken)
    assert (decoded.take(1, lambda: item) == item).all()
    assert (decoded.take(1, broken) == item).all()
    assert (decoded.take(0, lambda: np.zeros((1, 2, 2, 3), np.uint8)) == 0).all()
    assert (decoded.take(0, broken) == 0).all(), "black is a picture too"


@pytest.mark.parametrize("damage", ["pixels", "sums"])
def test_half_an_item_is_none(damage: str) -> None:
    decoded, item = Decoded([(1, 2, 2, 3)]), np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
    decoded.take(0, lambda: item)
    getattr(decoded, damage)[0] += 1
    calls = []

    def again() -> np.ndarray:
        calls.append(1)
        return item

    assert (decoded.take(0, again) == item).all()
    assert calls == [1]


def test_a_process_that_gets_it_by_pickling_decodes_for_itself(files: list[Path]) -> None:
    once = clips(files, 64)
    copy: VideoFolder = pickle.loads(pickle.dumps(once))
    for seed in range(2):
        assert torch.equal(copy.read(3, np.random.default_rng(seed)), once.read(3, np.random.default_rng(seed)))


def test_validation_takes_no_memory(files: list[Path]) -> None:
    once = clips(files, 64)
    assert once.decoded is not None
    read: Callable[[int], torch.Tensor] = once.__getitem__
    for index in range(len(once)):
        read(index)
    assert not once.decoded.sums.any()
