"""Clips from a folder tree of videos."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from vqgan.data.corpus import ClipDataset
from vqgan.data.decoded import MEGABYTE, Decoded
from vqgan.data.folder import Folder
from vqgan.data.reading.files import FileKind
from vqgan.errors import check
from vqgan.runtime.process import this_process
from vqgan.video.crop import augment
from vqgan.video.file import INDEX_VERSION, VideoFile, scan_video
from vqgan.video.reader import read_frames
from vqgan.video.times import average_rate, check_times, clip_positions, clip_starts

TOO_FAST = 1.1  # times the rate of the videos
SUFFIXES = (
    ".3g2 .3gp .asf .avi .divx .dv .f4v .flv .gif .h264 .hevc .ivf .m2ts .m2v .m4v .mkv .mov .mp4 .mpeg .mpg .mts .mxf "
    ".nut .obu .ogg .ogm .ogv .rm .rmvb .ts .vob .webm .wmv .y4m"
)
VIDEO_FILES = FileKind(
    name=f"videos {INDEX_VERSION}, PyAV {av.__version__}",
    suffixes=frozenset(SUFFIXES.split()),
    scan=scan_video,
    pack=VideoFile.pack,
    unpack=VideoFile.unpack,
)


@dataclass(kw_only=True)
class Videos(Folder[VideoFile]):
    """A folder of videos, in any container and codec that PyAV decodes.

    Args:
        clip_frames: frames of a clip.
        stride: take every stride-th frame.
        fps: take the frame on screen at each 1/fps seconds instead, whatever the file's frame rate; null for `stride`.
    """

    clip_frames: int
    stride: int | None
    fps: float | None

    kind = VIDEO_FILES

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.clip_frames > 0, "clip_frames", self.clip_frames, "positive")
        check_times(self.stride, self.fps)

    def times(self) -> tuple[int | None, float | None]:
        """See `Corpus.times`."""
        return self.stride, self.fps

    def accept(self, scanned: VideoFile) -> None:
        """Too few frames for one clip make a video unusable."""
        clip_starts(scanned, self.clip_frames, self.stride, self.fps)

    def dataset(self, files: Sequence[VideoFile]) -> ClipDataset:
        """All clips of the videos."""
        rate = max((average_rate(file.time_base, file.pts) for file in files), default=0.0)
        if self.fps is not None and self.fps > TOO_FAST * rate and this_process().is_first:
            warnings.warn(
                f"data.fps={self.fps:g} is more than any of the videos has ({rate:.3g}): clips repeat frames.",
                stacklevel=2,
            )
        return VideoFolder(
            files, self.resolution, self.clip_frames, self.stride, self.fps, self.crop == "random", self.flip,
            self.decoded_megabytes,
        )  # fmt: skip


class VideoFolder(ClipDataset):
    """Clips of videos: each video is cut into as many clips as it holds without overlap.

    A training clip starts anywhere within its part of the video, a validation clip in the middle of it.
    """

    def __init__(
        self, videos: Sequence[VideoFile], resolution: int, clip_frames: int, stride: int | None, fps: float | None,
        random_crop: bool, flip: bool, decoded_megabytes: int = 0,
    ) -> None:  # fmt: skip
        self.videos, self.resolution = videos, resolution
        self.clip_frames, self.stride, self.fps = clip_frames, stride, fps
        self.random_crop, self.flip = random_crop, flip
        counts = [len(clip_starts(v, clip_frames, stride, fps)) for v in videos]
        self.ends = np.cumsum(counts)  # position after the last clip of each video
        most = decoded_megabytes * MEGABYTE
        self.decoded = Decoded.if_they_fit(self._shapes(), most) if most else None

    def __len__(self) -> int:
        return int(self.ends[-1])

    def path(self, index: int) -> Path:
        """The file that clip `index` is from."""
        return self.videos[self._locate(index)[0]].path

    def seconds(self, index: int) -> list[float] | None:
        """See `ClipDataset.seconds`."""
        number, part = self._locate(index)
        video = self.videos[number]
        shown: list[float] = video.seconds[self._positions(video, part, None)].tolist()
        return shown

    def lasts(self, index: int) -> float | None:
        """See `ClipDataset.lasts`; by the average rate of its file, unless frames are taken by time."""
        video = self.videos[self._locate(index)[0]]
        rate = self.fps or average_rate(video.time_base, video.pts) / (self.stride or 1)
        return self.clip_frames / rate

    def read(self, index: int, rng: np.random.Generator | None) -> UInt8[Tensor, "time height width rgb"]:
        """Clip `index`; see `ClipDataset.read`."""
        return self.read_as(index, self.videos[self._locate(index)[0]], rng)

    def read_as(
        self, index: int, other: VideoFile, rng: np.random.Generator | None
    ) -> UInt8[Tensor, "time height width rgb"]:
        """Clip `index`, taken from another file that has as many frames: those at the same positions."""
        number, part = self._locate(index)
        video = self.videos[number]
        positions = self._positions(video, part, rng)
        if rng is not None and self.decoded is not None and other is video:
            first, last = clip_starts(video, self.clip_frames, self.stride, self.fps)[part].tolist()
            possible = self._positions_of(video, first, last)
            frames = self.decoded.take(index, lambda: read_frames(video, possible, self.resolution))
            frames = frames[np.searchsorted(possible, positions)]
        else:
            frames = read_frames(other, positions, self.resolution)
        return torch.from_numpy(augment(frames, self.resolution, rng, self.random_crop, self.flip))

    @property
    def decoded_bytes(self) -> int:
        """See `ClipDataset.decoded_bytes`."""
        return 0 if self.decoded is None else self.decoded.size

    def _positions(self, video: VideoFile, part: int, rng: np.random.Generator | None) -> Int[np.ndarray, "frames"]:
        """The frames of a clip."""
        first, last = clip_starts(video, self.clip_frames, self.stride, self.fps)[part].tolist()
        start = (first + last) // 2 if rng is None else int(rng.integers(first, last + 1))
        return clip_positions(video, start, self.clip_frames, self.stride, self.fps)

    def _positions_of(self, video: VideoFile, first: int, last: int) -> Int[np.ndarray, "frames"]:
        """All frames that a clip may have which starts from `first` to `last`.

        They are decoded together: where a damaged file gives other pixels for another place to start from, a clip must
        still be the same whichever came before it.
        """
        starts = range(first, last + 1)
        clips = [clip_positions(video, start, self.clip_frames, self.stride, self.fps) for start in starts]
        return np.unique(np.concatenate(clips))

    def _shapes(self) -> Iterator[tuple[int, int, int, int]]:
        """Those of all clips' frames as they are kept."""
        for video in self.videos:
            width, height = video.scaled_size(self.resolution)
            sides = (width, height) if video.rotation % 180 else (height, width)
            for first, last in clip_starts(video, self.clip_frames, self.stride, self.fps).tolist():
                yield self._how_many(video, first, last), *sides, 3

    def _how_many(self, video: VideoFile, first: int, last: int) -> int:
        """The length of `_positions_of`: counted where it can be, since all clips are asked when a run starts."""
        if self.fps is not None:
            return len(self._positions_of(video, first, last))
        starts, stride = last - first + 1, self.stride or 1
        return (self.clip_frames - 1) * min(stride, starts) + starts

    def _locate(self, index: int) -> tuple[int, int]:
        number = int(np.searchsorted(self.ends, index, side="right"))
        return number, index - int(self.ends[number - 1] if number else 0)
