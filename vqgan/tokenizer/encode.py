"""From videos to tokens: which frames, which of their pixels, in which batches."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from vqgan.autoencoder import Autoencoder, evaluating
from vqgan.backbones import Memory
from vqgan.config.build import build
from vqgan.config.command import command_config
from vqgan.data import Limits
from vqgan.errors import DataError, UnusableError, check
from vqgan.runtime.device import Precision
from vqgan.tokenizer.inference import InferenceSettings, encode_batch, parts_for, refuse_meaningless
from vqgan.tokens.folder import TokenVideo
from vqgan.tokens.records import smallest_type
from vqgan.tokens.side import read_beside
from vqgan.video.file import CUT_OFF, scan_video
from vqgan.video.reader import FrameStream
from vqgan.video.times import Reading, check_times

Frames = UInt8[np.ndarray, "time height width 3"]


@dataclass(kw_only=True)
class Encoding:
    """How videos become tokens: the values of `conf/encode.yaml`.

    A video's frames go through the network in batches of `batch_frames` from its first frame on, never together with
    another's, so that its codes depend on nothing else: not on what else is encoded, nor on the number of processes.
    Where codes know earlier frames, each batch goes on from the memory of the one before.

    Args:
        resolution: the shorter side is scaled to so many pixels, a multiple of the tokenizer's downsampling; the longer
            one in proportion, to a multiple too. None takes the resolution that the tokenizer was trained at.
        square: keep only the square in the middle.
        stride: take every stride-th frame.
        fps: take the frame on screen at each 1/fps seconds instead; None for `stride`.
        batch_frames: frames that the network takes at once, a multiple of the tokenizer's frames to a code.
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
        check_times(self.stride, self.fps)
        check(self.batch_frames > 0, "batch_frames", self.batch_frames, "positive")
        check(self.workers >= 0, "workers", self.workers, "at least 0")
        check(self.shard_megabytes > 0, "shard_megabytes", self.shard_megabytes, "positive")

    @cached_property
    def work(self) -> InferenceSettings:
        """The part that decoding must do alike."""
        return InferenceSettings(self.batch_frames, self.precision)


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
    multiple = math.lcm(*tokenizer.downsampling[1:])
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
        parts, memory, codes = parts_for(tokenizer, encoding.batch_frames), Memory(), []
        rows = read_beside(path, len(video.pts), cut_off)
        with closing(reading.open(video)) as stream, evaluating(tokenizer):
            for first in parts.firsts(len(stream.positions)):
                frames = read_batch(stream, reading, first, parts.length(first), cut_off)
                if len(frames):
                    codes.append(encode_batch(tokenizer, torch.from_numpy(frames), encoding.work, memory))
                if len(frames) < parts.length(first):
                    break
    except UnusableError as error:
        raise DataError(f"{path} cannot be encoded: {error}.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from None
    dtype = smallest_type(tokenizer.quantizer.codebook_size)
    time_base, times = reading.times(video)
    of_video = torch.cat(codes).cpu().numpy().astype(dtype)
    side = None if rows is None else np.asarray(rows[reading.positions(video)[: memory.taken]])
    return TokenVideo(path.name, of_video, time_base, times[: memory.taken], *reading.size(video), side)
