"""From videos to tokens: which frames, which of their pixels, in which batches."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, UInt8

from vqgan.autoencoder import Autoencoder
from vqgan.command_config import command_config
from vqgan.config import build
from vqgan.data import Limits
from vqgan.data.bad_files import UnusableError
from vqgan.data.transforms import augment
from vqgan.data.video_file import CUT_OFF, VideoFile, scan_video
from vqgan.data.video_reader import FrameStream
from vqgan.data.videos import TIME_ROUNDING
from vqgan.device import Precision
from vqgan.errors import DataError, check
from vqgan.inference import Work, codes_of, evaluating, refuse_meaningless
from vqgan.token_records import smallest_type
from vqgan.tokens import TokenVideo

Frames = UInt8[np.ndarray, "time height width 3"]


@dataclass(kw_only=True)
class Encoding:
    """How videos become tokens: the values of `conf/encode.yaml`.

    A video's frames go through the network in batches of `batch_frames` from its first frame on, never together with
    another's, so that its codes depend on nothing else: not on what else is encoded, nor on the number of processes.

    Args:
        resolution: the shorter side is scaled to so many pixels, a multiple of the tokenizer's downsampling; the longer
            one in proportion, to a multiple too. None takes the resolution that the tokenizer was trained at.
        square: keep only the square in the middle.
        stride: take every stride-th frame.
        fps: take the frame on screen at each 1/fps seconds instead; None for `stride`.
        batch_frames: frames that the network takes at once.
        precision: of the network, `fp32`, `bf16` (autocast) or `tf32` (convolutions on NVIDIA GPUs round to 10 bits).
        device: `auto` (cuda, mps or cpu, the first there is) or a torch device.
        workers: reading processes; 0 reads in this one.
        shard_megabytes: a shard that has so much is closed.
        index: file in which what was learned of files is kept; None looks into all of them each time.
        limits: what reading may cost.
    """

    resolution: int | None
    square: bool
    stride: int
    fps: float | None
    batch_frames: int
    precision: Precision
    device: str
    workers: int
    shard_megabytes: int
    index: str | None
    limits: Limits

    def __post_init__(self) -> None:
        check(self.resolution is None or self.resolution > 0, "resolution", self.resolution, "positive")
        check(self.stride > 0, "stride", self.stride, "positive")
        check(self.fps is None or self.fps > 0, "fps", self.fps, "positive")
        check(self.fps is None or self.stride == 1, "stride", self.stride, "1 when fps is given")
        check(self.batch_frames > 0, "batch_frames", self.batch_frames, "positive")
        check(self.workers >= 0, "workers", self.workers, "at least 0")
        check(self.shard_megabytes > 0, "shard_megabytes", self.shard_megabytes, "positive")

    @property
    def work(self) -> Work:
        """The part that decoding must do alike."""
        return Work(self.batch_frames, self.precision)


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
        times = np.arange(int((video.seconds[-1] + TIME_ROUNDING) * self.fps) + 1) / self.fps
        return np.searchsorted(video.seconds, times + TIME_ROUNDING, side="right") - 1

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


def is_cut_off(complaint: str | None) -> bool:
    """Whether that is what `scan_video` says of a file whose end is missing."""
    return complaint is not None and complaint.startswith(CUT_OFF)


def read_batch(stream: FrameStream, reading: Reading, first: int, count: int, cut_off: bool) -> Frames:
    """Frames `first` to `first + count`, fewer at the end; of a file that is cut off those before the first lost one.

    Raises:
        UnusableError: one of them, or of a file that is cut off the very first frame, cannot be decoded.
    """
    count = min(count, len(stream.positions) - first)
    while count:
        try:
            return reading.crop(stream.read(first, count))
        except UnusableError:
            count -= 1
            if not cut_off or (first == count == 0):
                raise
    return np.empty((0, 1, 1, 3), np.uint8)


def reading_for(encoding: Encoding, tokenizer: Autoencoder) -> Reading:
    """How videos are read for this tokenizer.

    Raises:
        ConfigError: the resolution does not fit it.
    """
    resolution = encoding.resolution or tokenizer.resolution
    multiple = tokenizer.downsampling
    fits = resolution % multiple == 0
    check(fits, "resolution", resolution, f"a multiple of {multiple}, the tokenizer's downsampling")
    return Reading(resolution, multiple, encoding.square, encoding.stride, encoding.fps)


def encoding_with(values: Mapping[str, Any]) -> Encoding:
    """The values of `conf/encode.yaml`, with these in place of their own, for a video that is encoded in this process.

    Raises:
        ConfigError: there is no such value, or it cannot be that, or it means nothing here.
    """
    refuse_meaningless(values, ("device", "workers", "shard_megabytes", "index", "limits"))
    encoding: Encoding = build(command_config("encode", [], values), "")
    return encoding


def encode_video(tokenizer: Autoencoder, encoding: Encoding, path: Path) -> TokenVideo:
    """The tokens of one video, in memory, computed where the tokenizer is; of one that is cut off as far as it goes.

    Raises:
        DataError: it cannot be used.
    """
    reading = reading_for(encoding, tokenizer)
    try:
        video, complaint = scan_video(path)
        cut_off = is_cut_off(complaint)
        parts = []
        with closing(reading.open(video)) as stream, evaluating(tokenizer):
            for first in range(0, len(stream.positions), encoding.batch_frames):
                frames = read_batch(stream, reading, first, encoding.batch_frames, cut_off)
                if len(frames):
                    parts.append(codes_of(tokenizer, torch.from_numpy(frames), encoding.work))
                if len(frames) < encoding.batch_frames:
                    break
    except UnusableError as error:
        raise DataError(f"{path} cannot be encoded: {error}.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from None
    codes = torch.cat(parts).cpu().numpy().astype(smallest_type(tokenizer.quantizer.codebook_size))
    time_base, times = reading.times(video)
    return TokenVideo(path.name, codes, time_base, times[: len(codes)], *reading.size(video))
