"""Codecs as yardsticks: their bytes by an independent count, their frames in their places, and their memory."""

from __future__ import annotations

import io
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from tests.support.scheduling import kept_usual
from tests.unit.evaluation.test_evaluator import evaluator
from vqgan.data.synthetic import draw_video
from vqgan.errors import ConfigError
from vqgan.evaluation.codec import CODERS, Codec
from vqgan.evaluation.reconstructor import Group

SIDE, CPU = 64, torch.device("cpu")
OPTIONS: dict[str, dict[str, str]] = {  # with x264's macroblock tree the same frames give other bytes each time
    "libx264": {"preset": "veryfast", "x264-params": "mbtree=0"},
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=none:info=0"},
    "libsvtav1": {"preset": "10", "svtav1-params": "lp=1"},
}
DROPPED = {"libx264": {6, 7, 8, 9}, "libx265": {32, 33, 34, 35, 39, 40}}


def codec(name: str, quality: float = 28, **options: str) -> Codec:
    return Codec(name, quality, "yuv420p", 24, OPTIONS[name] | options)


def groups(videos: int, clips: int, frames: int = 8) -> Iterator[Group]:
    for video in range(videos):
        drawn = draw_video(video, clips * frames, SIDE)
        for clip in range(clips):
            yield [Path(f"{video}.mp4")], torch.from_numpy(drawn[None, clip * frames : (clip + 1) * frames])


def units_in_a_file(name: str, frames: np.ndarray) -> tuple[int, int]:
    """Bytes of a video's packets in a Matroska file without what is in its header too, and how many units they are."""
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream(name, 24, {**OPTIONS[name], "crf": "28"})
        stream.width, stream.height, stream.pix_fmt, stream.thread_count = SIDE, SIDE, "yuv420p", 1
        stream.codec_context.time_base = Fraction(1, 24)
        stream.codec_context.colorspace, stream.codec_context.color_range = 6, 1  # BT.601, limited
        for number, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(
                format="yuv420p", dst_colorspace=6, dst_color_range=1, interpolation=4 | 0x40000 | 0x2000
            )
            picture.pts, picture.time_base = number, Fraction(1, 24)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    file.seek(0)
    size, count = 0, 0
    with av.open(file) as container:
        for packet in container.demux(video=0):
            content = bytes(packet)
            if name == "libsvtav1":
                size, count = size + len(content), count + 1
                continue
            while content:  # each unit behind its length in four bytes
                length = int.from_bytes(content[:4], "big")
                kind = content[4] >> 1 & 63 if name == "libx265" else content[4] & 31
                if kind not in DROPPED[name]:
                    size, count = size + 4 + length, count + 1
                content = content[4 + length :]
    return size, count


@pytest.mark.parametrize("name", CODERS)
def test_its_bytes_are_those_that_a_file_holds(name: str) -> None:
    found = list(codec(name).reconstruct(groups(1, 3), CPU))
    spent = sum(float(one.bits.sum()) for one in found if one.bits is not None) / 8
    with kept_usual():
        held, units = units_in_a_file(name, draw_video(0, 24, SIDE))
    assert (
        held - units <= spent <= held
    )  # in a file a unit's length takes four bytes, in a stream its start three or four
    assert spent > 300
    assert all(float(one.bits) > 0 for one in found if one.bits is not None)


@pytest.mark.parametrize("name", CODERS)
def test_frames_come_back_in_their_places(name: str) -> None:
    """Each is more like its own original than like any other of the clip."""
    found = list(codec(name, 20).reconstruct(groups(2, 2), CPU))
    expected = list(groups(2, 2))
    assert [one.paths for one in found] == [paths for paths, _ in expected]
    for one, (_, clips) in zip(found, expected):
        assert torch.equal(one.originals, clips)
        x, y = (clip[0].float().flatten(1) for clip in (clips, one.clips))
        assert torch.cdist(y, x).argmin(1).tolist() == list(range(len(x)))


def test_videos_know_nothing_of_each_other() -> None:
    both = [float(one.bits.sum()) for one in codec("libx264").reconstruct(groups(2, 2), CPU) if one.bits is not None]
    second = [group for group in groups(2, 2) if group[0] == [Path("1.mp4")]]
    alone = [float(one.bits.sum()) for one in codec("libx264").reconstruct(second, CPU) if one.bits is not None]
    assert both[2:] == alone


def test_clips_of_a_video_are_one_video() -> None:
    """Of a still one only the first pays for the picture, if the encoder spends nothing on making it finer."""
    still = torch.from_numpy(draw_video(0, 1, SIDE)[None]).expand(1, 8, SIDE, SIDE, 3)
    groups_of_it: list[Group] = [([Path("still.mp4")], still)] * 4
    encoder = codec("libx264", **{"x264-params": "mbtree=0:qcomp=1"})
    bits = [float(one.bits.sum()) for one in encoder.reconstruct(groups_of_it, CPU) if one.bits is not None]
    assert bits[0] > 3 * max(bits[1:])


def test_how_clips_are_grouped_changes_nothing() -> None:
    one, many = (evaluator(batch_frames=n).measure(codec("libx264"), list(singles())) for n in (1, 100))
    assert one.metrics["bits_per_pixel"] == many.metrics["bits_per_pixel"]
    assert one.metrics["psnr"].value == pytest.approx(many.metrics["psnr"].value)


def singles() -> Iterator[tuple[Path, torch.Tensor]]:
    for paths, clips in groups(2, 2):
        yield paths[0], clips[0]


def test_few_frames_wait() -> None:
    """However long a video is, no more than the encoder looks ahead."""
    taken = 0

    def counted() -> Iterator[Group]:
        nonlocal taken
        still = torch.from_numpy(draw_video(0, 8, SIDE)[None])
        for _ in range(60):
            taken += 1
            yield [Path("long.mp4")], still

    ahead = [
        taken - number for number, _ in enumerate(codec("libx264", preset="ultrafast").reconstruct(counted(), CPU))
    ]
    assert len(ahead) == 60
    assert max(ahead) <= 12


def test_coarser_is_cheaper_and_worse() -> None:
    fine, coarse = (evaluator().measure(codec("libx264", quality), list(singles())).metrics for quality in (20, 40))

    def both(name: str) -> Any:
        return fine[name].value, coarse[name].value

    assert both("bits_per_pixel")[0] > 2 * both("bits_per_pixel")[1]
    assert both("psnr")[0] > both("psnr")[1] + 5


def test_what_it_cannot_encode_is_one_sentence() -> None:
    odd = [([Path("a.mp4")], torch.zeros(1, 2, 33, 33, 3, dtype=torch.uint8))]
    with pytest.raises(ConfigError, match=r"takes even sides in yuv420p, and frames have 33×33"):
        list(codec("libx264").reconstruct(odd, CPU))
    with pytest.raises(ConfigError, match="cannot encode frames of 64×64 in no_such_pixels with its own opt"):
        list(Codec("libx264", 28, "no_such_pixels", 24, {}).reconstruct(groups(1, 1), CPU))
