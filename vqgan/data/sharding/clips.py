"""From videos to the clips that shards hold: which frames, how they are encoded, or files as they are."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
from jaxtyping import Int

from vqgan.data import Limits
from vqgan.data.sharding.index import LARGEST_CLIP
from vqgan.errors import UnusableError, check
from vqgan.video.file import VideoFile, scan_video
from vqgan.video.reader import FrameStream
from vqgan.video.times import Reading, average_rate, check_times
from vqgan.video.writer import Preset, VideoWriter

ROOM = 2**20  # bytes of the largest clip that are left for what is said of it
NOT_WRITTEN = ("workers", "shard_megabytes", "index", "limits")  # values that change nothing in a clip


@dataclass(frozen=True, kw_only=True)
class Sharding:
    """How videos become clips: the values of `conf/shard.yaml`.

    Args:
        reencode: cut videos into clips and encode them anew; else each video is one clip, its file as it is.
        resolution: the shorter side is scaled down to so many pixels, which are even; a smaller one stays as it is.
        stride: take every stride-th frame.
        fps: take the frame on screen at each 1/fps seconds instead; None for `stride`.
        clip_frames: a video is cut evenly into clips of at least so many frames and fewer than twice; a shorter one
            is one clip.
        crf: x264's quality, in [0, 51].
        keyframe_every: frames from one keyframe to the next, at most.
        preset: x264's speed.
        workers: processes that read and encode; 0 does it in this one.
        shard_megabytes: a shard that has so much is closed; the clips of one video stay together.
        index: file in which what was learned of files is kept; None looks into all of them each time.
        limits: what a clip may cost.
    """

    reencode: bool
    resolution: int
    stride: int
    fps: float | None
    clip_frames: int
    crf: int
    keyframe_every: int
    preset: Preset
    workers: int
    shard_megabytes: int
    index: str | None
    limits: Limits

    def __post_init__(self) -> None:
        check(self.resolution >= 16 and self.resolution % 2 == 0, "resolution", self.resolution, "even, at least 16")
        check_times(self.stride, self.fps)
        check(self.clip_frames > 0, "clip_frames", self.clip_frames, "positive")
        check(0 <= self.crf <= 51, "crf", self.crf, "in [0, 51]")
        check(self.keyframe_every > 0, "keyframe_every", self.keyframe_every, "positive")
        check(self.workers >= 0, "workers", self.workers, "at least 0")
        check(self.shard_megabytes > 0, "shard_megabytes", self.shard_megabytes, "positive")

    @property
    def written(self) -> dict[str, Any]:
        """The values that clips depend on."""
        return {key: value for key, value in asdict(self).items() if key not in NOT_WRITTEN}

    def reading(self, video: VideoFile) -> Reading:
        """Which frames and pixels of a video are kept."""
        shorter = min(video.displayed_size) // 2 * 2
        return Reading(min(self.resolution, max(2, shorter)), 2, False, self.stride, self.fps)

    def parts(self, video: VideoFile) -> Int[np.ndarray, "parts_plus_one"]:
        """Where the clips of a video begin in the list of its frames that are kept, and where the last one ends."""
        if not self.reencode:
            return np.array([0, len(video.pts)])
        frames = len(self.reading(video).positions(video))
        return np.linspace(0, frames, max(1, frames // self.clip_frames) + 1).round().astype(np.int64)


class Clips:
    """The clips of `videos`, made in memory."""

    def __init__(self, videos: Sequence[VideoFile], sharding: Sharding) -> None:
        self.videos, self.sharding = videos, sharding
        self.open: tuple[int, FrameStream] | None = None  # by the process that reads

    def read(self, video: int, part: int) -> VideoFile:
        """One clip.

        Raises:
            UnusableError: it cannot be made.
        """
        try:
            return self._encoded(video, part) if self.sharding.reencode else self._as_it_is(video)
        except MemoryError:  # the limit: FFmpeg has one of its own, which is not "cannot be encoded"
            raise
        except OSError as error:
            raise UnusableError(f"unreadable: {error.strerror or error}") from None
        except av.FFmpegError as error:  # x264's, of sides that it does not take: reading has errors of its own
            raise UnusableError(f"cannot be encoded: {error.strerror or error}") from None

    def _encoded(self, number: int, part: int) -> VideoFile:
        video, sharding = self.videos[number], self.sharding
        first, after = sharding.parts(video)[part : part + 2].tolist()
        frames = self._stream(number).read(first, after - first)
        time_base, times = sharding.reading(video).times(video)
        times = times[first:after] - times[first]
        options = {
            "crf": str(sharding.crf), "g": str(sharding.keyframe_every), "preset": sharding.preset, "threads": "1",
        }  # fmt: skip
        file, (height, width) = io.BytesIO(), frames.shape[1:3]
        rate = Fraction(average_rate(time_base, times))
        with VideoWriter(file, width, height, rate, Fraction(time_base), options) as target:
            for frame, time in zip(frames, times.tolist()):
                target.add(frame, time)
        return _clip(video, file.getvalue())

    def _as_it_is(self, number: int) -> VideoFile:
        video = self.videos[number]
        size = video.path.stat().st_size
        if size > LARGEST_CLIP - ROOM:
            raise UnusableError(f"too large to be stored as it is: {size:,} bytes")
        return _clip(video, video.path.read_bytes())

    def _stream(self, video: int) -> FrameStream:
        if self.open is None or self.open[0] != video:
            if self.open is not None:
                self.open[1].close()
            self.open = video, self.sharding.reading(self.videos[video]).open(self.videos[video])
        return self.open[1]


def _clip(video: VideoFile, content: bytes) -> VideoFile:
    if len(content) > LARGEST_CLIP - ROOM:
        raise UnusableError(f"too large a clip: {len(content):,} bytes; ask for fewer clip_frames")
    return scan_video(video.path, content)[0]
