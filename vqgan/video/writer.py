"""Writing a video file as its frames come."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Literal, TypeAlias

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from jaxtyping import UInt8

Preset: TypeAlias = Literal[  # x264's speeds
    "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"
]  # fmt: skip
LARGEST_TIME_SCALE = 10**6  # units of a second that mp4 files are written with
EXACT = 10**-9  # a time base that is so near, of itself, is the one that was meant: a millisecond in eleven days


class VideoWriter:
    """Writes h264 in mp4, which every browser plays, and says in the file what its colours mean.

    Use it in a `with` statement.

    Args:
        file: its path, or a file in memory.
        width: in pixels, even.
        height: in pixels, even.
        rate: frames per second, on average.
        time_base: seconds per unit of the frames' times. One finer than a microsecond is not kept: times are rounded.
        options: of x264.

    Raises:
        OSError: the file cannot be written.
    """

    def __init__(
        self,
        file: Path | BytesIO,
        width: int,
        height: int,
        rate: Fraction,
        time_base: Fraction,
        options: Mapping[str, str],
    ) -> None:
        nearest = time_base.limit_denominator(LARGEST_TIME_SCALE)
        is_kept = abs(nearest - time_base) <= EXACT * time_base
        self.time_base = nearest if is_kept else Fraction(1, LARGEST_TIME_SCALE)
        self.unit = Fraction(1) if is_kept else time_base / self.time_base  # of the times, in those of the file
        self.last: int | None = None  # time of the frame that was added last, in units of the file
        rate = rate.limit_denominator(LARGEST_TIME_SCALE)
        self.container = av.open(f"file:{file}" if isinstance(file, Path) else file, "w", format="mp4")
        # x264's macroblock tree reads memory that nobody wrote: with it the same frames give other bytes each time.
        self.stream = self.container.add_stream("libx264", rate, {"x264-params": "mbtree=0", **options})
        self.stream.width, self.stream.height, self.stream.pix_fmt = width, height, "yuv420p"
        context = self.stream.codec_context
        context.time_base = self.time_base
        context.colorspace, context.color_range = Colorspace.SMPTE170M, ColorRange.MPEG  # BT.601, limited
        self.scaler = VideoReformatter()

    def add(self, frame: UInt8[np.ndarray, "height width 3"], time: int) -> None:
        """The next frame, scaled to the video's size, and its time in units of `time_base`, which must rise."""
        picture = self.scaler.reformat(
            av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24"),
            self.stream.width,
            self.stream.height,
            "yuv420p",
            dst_colorspace=Colorspace.SMPTE170M,
            dst_color_range=ColorRange.MPEG,
            interpolation=Interpolation.BICUBIC | Interpolation.ACCURATE_RND,
        )
        time = round(time * self.unit)
        if self.last is not None and self.unit != 1:  # two frames within a microsecond stay two
            time = max(time, self.last + 1)
        self.last = time
        picture.pts, picture.time_base = time, self.time_base
        self.container.mux(self.stream.encode(picture))

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        try:
            if error is None:
                self.container.mux(self.stream.encode())
        finally:
            self.container.close()


def write_video(path: Path, frames: UInt8[np.ndarray, "time height width 3"], fps: int) -> None:
    """Write all frames of a video; sides must be even, and the same frames give the same bytes.

    Raises:
        OSError: the file cannot be written.
    """
    height, width = frames.shape[1:3]
    with VideoWriter(path, width, height, Fraction(fps), Fraction(1, fps), {"crf": "12", "threads": "1"}) as video:
        for number, frame in enumerate(frames):
            video.add(frame, number)
