"""Which frames of a video are read, and when they are shown."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8

from vqgan.errors import UnusableError, check
from vqgan.video.crop import augment
from vqgan.video.file import VideoFile
from vqgan.video.reader import FrameStream

# Seconds by which two frames' distance may be wrong: mkv and webm round times to milliseconds.
TIME_ROUNDING = 1.001e-3


def check_times(stride: int | None, fps: float | None) -> None:
    """Raise `InvalidValueError` unless these values say which frames of a video are taken."""
    check(stride is None or stride > 0, "stride", stride, "positive")
    check(fps is None or fps > 0, "fps", fps, "positive")
    check(fps is None or stride in (None, 1), "stride", stride, "1 when fps is given")
    check(fps is not None or stride is not None, "stride", stride, "a number unless fps is given")


def _on_screen(video: VideoFile, seconds: Float[np.ndarray, "times"]) -> Int[np.ndarray, "times"]:
    """The position of the frame that is shown at each of these times; -1 before the first."""
    return np.searchsorted(video.seconds, seconds + TIME_ROUNDING, side="right") - 1


def clip_starts(
    video: VideoFile, clip_frames: int, stride: int | None, fps: float | None
) -> Int[np.ndarray, "clips 2"]:
    """For each clip of a video the first and the last position at which it may start.

    Raises:
        UnusableError: the video is shorter than one clip.
    """
    if fps is None:
        span = (clip_frames - 1) * (stride or 1) + 1  # positions from a clip's first frame to its last
        latest = len(video.pts) - span
        first = np.arange(len(video.pts) // span) * span
        after = first + span
    else:
        seconds = video.seconds
        latest = _on_screen(video, seconds[-1:] - (clip_frames - 1) / fps).item()
        slots = np.unique((seconds + TIME_ROUNDING) * fps // clip_frames)  # a gap in time has none, however long
        edges = np.stack([slots, slots + 1]) * clip_frames / fps - TIME_ROUNDING
        first, after = np.searchsorted(seconds, edges)
    starts = np.stack([first, np.minimum(after - 1, latest)], axis=1)
    starts = starts[starts[:, 0] <= starts[:, 1]]
    if len(starts) == 0:
        raise UnusableError(f"too short: {len(video.pts)} frames are less than one clip")
    return starts


def clip_positions(
    video: VideoFile, start: int, clip_frames: int, stride: int | None, fps: float | None
) -> Int[np.ndarray, "time"]:
    """The positions of a clip's frames, from the one at `start` on."""
    steps = np.arange(clip_frames)
    if fps is None:
        return np.minimum(start + steps * (stride or 1), len(video.pts) - 1)
    positions = _on_screen(video, video.seconds[start] + steps / fps)
    positions[0] = start
    return positions


@dataclass(frozen=True)
class Reading:
    """Which frames of a video, and which of their pixels."""

    resolution: int
    multiple: int
    square: bool
    stride: int
    fps: float | None

    def positions(self, video: VideoFile) -> Int[np.ndarray, "time"]:
        """Of the frames, in the video's own list."""
        if self.fps is None:
            return np.arange(0, len(video.pts), self.stride)
        return _on_screen(video, np.arange(int((video.seconds[-1] + TIME_ROUNDING) * self.fps) + 1) / self.fps)

    def times(self, video: VideoFile) -> tuple[float, Int[np.ndarray, "time"]]:
        """Seconds per unit of time, and the time of each of these frames."""
        positions = self.positions(video)
        if self.fps is not None:
            return 1 / self.fps, np.arange(len(positions))
        return video.time_base, video.pts[positions] - video.pts[0]

    def size(self, video: VideoFile) -> tuple[int, int]:
        """(width, height) of the part of the source that is read, in its own pixels."""
        width, height = video.displayed_size
        return (min(width, height),) * 2 if self.square else (width, height)

    def open(self, video: VideoFile) -> FrameStream:
        """The frames at `positions`."""
        return FrameStream(video, self.positions(video), self.resolution, self.multiple)

    def crop(self, frames: UInt8[np.ndarray, "time h w 3"]) -> UInt8[np.ndarray, "time h2 w2 3"]:
        """The pixels that are kept."""
        return augment(frames, self.resolution, None, random_crop=False, flip=False) if self.square else frames


def average_rate(time_base: float, times: Int[np.ndarray, "frames"]) -> float:
    """Frames per second; of a single frame 25."""
    span = float(times[-1] - times[0]) * time_base
    return (len(times) - 1) / span if span else 25.0
