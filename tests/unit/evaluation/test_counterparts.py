"""Reconstructions that somebody wrote: which files belong together, and which frames."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from tests.unit.evaluation.test_evaluator import evaluator
from vqgan.config.build import build
from vqgan.data import BadFiles, Corpus
from vqgan.data.synthetic import draw_video
from vqgan.errors import ConfigError, DataError
from vqgan.evaluation.counterparts import Counterparts, match
from vqgan.evaluation.evaluator import Measurement
from vqgan.evaluation.subject import data_section, read_clips
from vqgan.video.writer import write_video


def corpus(root: Path, **values: Any) -> Corpus:
    section = data_section(None, str(root)) | {"resolution": 32, "workers": 0, "index": None} | values
    found: Corpus = build(OmegaConf.create(section), "data")
    return found


def measured(theirs: Counterparts, folder: Corpus, tmp_path: Path) -> Measurement:
    bad_files = BadFiles(tmp_path / "bad.jsonl", 0.0, 0)
    dataset = folder.whole(bad_files)
    pairs = theirs.read_beside(dataset, range(len(dataset)), folder)
    return evaluator().measure(theirs, read_clips(pairs, None, folder, bad_files))


def write_pictures(folder: Path, levels: dict[str, int], size: tuple[int, int] = (48, 32)) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(50, 200, (size[1], size[0], 3))
    for name, shift in levels.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels + shift).astype(np.uint8)).save(folder / name)


def test_files_belong_together_by_path_whatever_their_suffix() -> None:
    originals = {Path(f"/data/{name}"): Path(name) for name in ("a/1.mov", "b/1.mov", "2.avi", "3.mp4", "4.mp4")}
    theirs = [Path(f"/theirs/{name}") for name in ("a/1.mp4", "2.mp4", "2.webm", "3.mp4", "3.webm", "1.mp4")]
    found, left = match(originals, theirs, Path("/theirs"))
    assert {str(a): str(b) for a, b in found.items()} == {
        "/data/a/1.mov": "/theirs/a/1.mp4", "/data/3.mp4": "/theirs/3.mp4",
    }  # fmt: skip
    assert [file.name for file in left] == ["2.mp4", "2.webm", "3.webm", "1.mp4"]


def test_pictures_have_the_psnr_of_the_formula(tmp_path: Path) -> None:
    write_pictures(tmp_path / "mine", {"x/0.png": 0, "1.png": 0, "2.png": 0})
    write_pictures(tmp_path / "theirs", {"x/0.png": 5, "1.bmp": 5, "2.png": 5})
    theirs = Counterparts(str(tmp_path / "theirs"))
    found = measured(theirs, corpus(tmp_path / "mine"), tmp_path)
    assert (found.videos, found.clips, found.frames) == (3, 3, 3)
    assert found.metrics["psnr"].value == pytest.approx(20 * math.log10(255 / 5), abs=1e-4)
    assert found.metrics["bits_per_pixel"].value is None
    assert theirs.remarks == []


def test_what_is_missing_and_what_is_too_much_is_listed(tmp_path: Path) -> None:
    """The rest is measured, and a copy is the same whatever is cut out of it."""
    for number in range(4):
        (tmp_path / "mine" / "sub").mkdir(parents=True, exist_ok=True)
        write_video(tmp_path / "mine" / "sub" / f"{number}.mp4", draw_video(number, 13, 40), 24)
    shutil.copytree(tmp_path / "mine", tmp_path / "theirs")
    write_video(tmp_path / "theirs" / "sub" / "1.mp4", draw_video(1, 12, 40), 24)
    (tmp_path / "theirs" / "sub" / "2.mp4").unlink()
    (tmp_path / "theirs" / "sub" / "3.mp4").write_bytes(b"no video")
    write_video(tmp_path / "theirs" / "more.mp4", draw_video(5, 13, 40), 24)
    theirs = Counterparts(str(tmp_path / "theirs"))
    found = measured(theirs, corpus(tmp_path / "mine", clip_frames=4, stride=2), tmp_path)
    assert (found.videos, found.frames) == (1, 4)
    assert found.metrics["psnr"].value == 100
    sizes, missing, unusable, left = theirs.remarks
    assert sizes == "its files have 40×40 pixels, and are scaled and cropped"
    assert missing == f"it has no counterpart of {Path('sub/2.mp4')}"
    assert unusable.startswith("unusable: ")
    assert "1.mp4 (12 frames instead of 13)" in unusable
    assert "3.mp4 (" in unusable
    assert left == "no original has more.mp4"
    assert not list((tmp_path / "theirs").rglob("*.jsonl"))


def test_a_video_that_lags_by_a_frame_is_not_the_same(tmp_path: Path) -> None:
    frames = draw_video(0, 13, 40)
    for name, drawn in (("mine", frames), ("theirs", np.roll(frames, 1, axis=0))):
        (tmp_path / name).mkdir()
        write_video(tmp_path / name / "0.mp4", drawn, 24)
    found = measured(Counterparts(str(tmp_path / "theirs")), corpus(tmp_path / "mine", clip_frames=4), tmp_path)
    value = found.metrics["psnr"].value
    assert value is not None
    assert value < 40


def test_squares_as_they_were_measured_and_whole_frames_are_both_taken(tmp_path: Path) -> None:
    write_pictures(tmp_path / "mine", {"0.png": 0}, (64, 32))
    write_pictures(tmp_path / "whole", {"0.png": 0}, (64, 32))
    (tmp_path / "square").mkdir()
    with Image.open(tmp_path / "mine" / "0.png") as picture:
        picture.crop((16, 0, 48, 32)).save(tmp_path / "square" / "0.png")
    for name in ("whole", "square"):
        found = measured(Counterparts(str(tmp_path / name)), corpus(tmp_path / "mine"), tmp_path)
        assert found.metrics["psnr"].value == 100, name


def test_nothing_in_common_is_one_sentence(tmp_path: Path) -> None:
    write_pictures(tmp_path / "mine", {"0.png": 0})
    write_pictures(tmp_path / "theirs", {"1.png": 0})
    with pytest.raises(DataError, match=r"videos:theirs has no file that can be matched with an original \(it has no"):
        measured(Counterparts(str(tmp_path / "theirs")), corpus(tmp_path / "mine"), tmp_path)
    with pytest.raises(DataError, match="is not a folder"):
        measured(Counterparts(str(tmp_path / "nowhere")), corpus(tmp_path / "mine"), tmp_path)


def test_other_data_than_files_are_refused(tmp_path: Path) -> None:
    write_pictures(tmp_path / "mine", {"0.png": 0})
    folder = corpus(tmp_path / "mine")
    with pytest.raises(ConfigError, match="beside a folder of videos or of pictures"):
        Counterparts(str(tmp_path)).read_beside(object(), range(1), folder)  # type: ignore[arg-type]
