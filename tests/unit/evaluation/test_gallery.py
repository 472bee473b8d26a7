"""The clips that the page shows: the same ones of every subject, and never more than a few."""

from __future__ import annotations

import base64
import io
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vqgan.evaluation.figures import UNITS, Metric
from vqgan.evaluation.gallery import MOST_CLIPS, MOST_FRAMES, WIDEST, Gallery
from vqgan.evaluation.reconstructor import Reconstructed
from vqgan.evaluation.report import Report, _not_computed, against_codecs
from vqgan.evaluation.showing import page_entries
from vqgan.reports.referee import side_by_side


def reconstructed(number: int, shift: int = 5, side: int = 16, frames: int = 3) -> Reconstructed:
    levels = np.random.default_rng(number).integers(10, 200, (1, frames, side, side, 3)).astype(np.uint8)
    clips = torch.from_numpy(levels)
    return Reconstructed([Path(f"{number}.mp4")], clips, clips + shift)


def gallery_of(numbers: list[int], shift: int = 5) -> Gallery:
    gallery = Gallery()
    for number in numbers:
        gallery.add(reconstructed(number, shift))
    return gallery


def test_subjects_show_the_same_clips_in_whatever_order_they_come() -> None:
    numbers = list(range(60))
    first = gallery_of(numbers)
    random.Random(0).shuffle(numbers)
    second = gallery_of(numbers, shift=9)
    assert len(first.clips) == MOST_CLIPS
    assert first.clips.keys() == second.clips.keys()
    lost = gallery_of(numbers[5:])
    assert len(lost.clips.keys() & first.clips.keys()) >= MOST_CLIPS - 5


def test_a_clip_is_shown_by_its_frames_side_by_side() -> None:
    gallery = Gallery()
    gallery.add(reconstructed(0, side=2 * WIDEST, frames=MOST_FRAMES + 3))
    (shown,) = gallery.clips.values()
    content = base64.b64decode(shown.made.partition(",")[2])
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.size == (MOST_FRAMES * WIDEST, WIDEST)
    assert shown.frames == MOST_FRAMES
    assert shown.psnr == pytest.approx(20 * np.log10(255 / 5), abs=1e-3)


def test_those_come_first_that_differ_most() -> None:
    near, far = gallery_of([0, 1]), gallery_of([0])
    far.add(reconstructed(1, shift=40))
    shown = side_by_side([{key: vars(clip) for key, clip in one.clips.items()} for one in (near, far)], [False, False])
    assert [clip["source"] for clip in shown] == ["1.mp4", "0.mp4"]
    assert shown[0]["difference"] == pytest.approx(20 * np.log10(40 / 5), abs=1e-3)
    assert [made["psnr"] for made in shown[0]["made"]] == pytest.approx(
        [20 * np.log10(255 / n) for n in (5, 40)], abs=1e-3
    )


def test_what_one_subject_lacks_is_shown_of_the_others() -> None:
    shown = side_by_side(
        [{"a": {"source": "a", "frames": 1, "psnr": 3.0, "original": "", "made": ""}}, {}], [False, False]
    )
    assert shown[0]["made"][1] is None
    assert shown[0]["difference"] == 0


def test_yardsticks_do_not_say_where_tokenizers_differ() -> None:
    def clip(psnr: float) -> dict[str, object]:
        return {"source": "a", "frames": 1, "psnr": psnr, "original": "", "made": ""}

    one, two, mean = ({"a": clip(psnr)} for psnr in (30, 32, 10))
    assert side_by_side([one, two, mean], [False, False, True])[0]["difference"] == 2
    assert side_by_side([one, mean], [False, True])[0]["difference"] == 20


def report(name: str, rate: float | None, psnr: float, curve: str | None = None) -> Report:
    metrics = {key: Metric(None, None, None, unit, None) for key, unit in UNITS.items()}
    metrics["psnr"] = Metric(psnr, None, None, "dB", None)
    metrics["bits_per_pixel"] = Metric(rate, None, None, "bit/pixel", None)
    return Report(metrics, {"tokenizer": {"name": name, "step": None, "curve": curve, "yardstick": curve is not None}})


CURVE = [report("x crf=40", 0.01, 20, "x"), report("x crf=30", 0.04, 30, "x"), report("x crf=20", 0.16, 34, "x")]


def test_codecs_are_read_off_at_the_rate_of_each_tokenizer() -> None:
    """Halfway between two points in the logarithm of the rate."""
    (line,) = against_codecs([report("ours", 0.02, 28), *CURVE, report("theirs", None, 50)])
    assert line == "ours at 0.02 bit/pixel, and codecs at that rate: psnr 28 (x 25)"


def test_a_codec_that_was_not_measured_there_is_not_made_up() -> None:
    (line,) = against_codecs([report("ours", 0.001, 28), *CURVE])
    assert line == "ours at 0.001 bit/pixel, and codecs at that rate: x's points are all above, from 0.01"
    assert against_codecs([report("ours", 0.02, 28)]) == []


def test_of_a_codec_the_clips_of_the_nearest_rate_are_shown() -> None:
    entries = page_entries([report("ours", 0.05, 28), *CURVE], [gallery_of([0])] * 4)
    assert [entry["name"] for entry in entries if entry["clips"] is not None] == ["ours", "x crf=30"]
    entries = page_entries([report("theirs", None, 28), *CURVE], [gallery_of([0])] * 4)
    assert [entry["name"] for entry in entries if entry["clips"] is not None] == ["theirs", "x crf=30"]


def test_each_missing_figure_has_its_own_reason() -> None:
    one = report("mine", 0.1, 25.0)
    found = {"ssim": "grey", "lpips": "no file; give: a", "rfid": "no file; give: b", "rfvd": "two are needed"}
    one.metrics.update({name: Metric(None, None, None, "", reason) for name, reason in found.items()})
    assert set(_not_computed([one])) == {
        "ssim not computed: grey", "lpips, rfid not computed: no file; give: a b", "rfvd not computed: two are needed",
    }  # fmt: skip
