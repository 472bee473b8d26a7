"""From tokens back to videos."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
import torch
from jaxtyping import UInt8

from vqgan.autoencoder import Autoencoder, evaluating
from vqgan.backbones import Memory
from vqgan.config.build import build
from vqgan.config.command import command_config
from vqgan.errors import CheckpointError, DataError, check
from vqgan.files.writing import storing, whole
from vqgan.tokenizer.inference import InferenceSettings, decode_batch, parts_for, refuse_meaningless
from vqgan.tokens.folder import TokenVideo
from vqgan.video.writer import Preset, VideoWriter

Frames = UInt8[np.ndarray, "time height width rgb"]


@dataclass(kw_only=True)
class Decoding:
    """How tokens become videos: the values of `conf/decode.yaml`.

    Args:
        size: `source` scales frames to the size of the videos that were encoded, `model` leaves them as the network
            gives them.
        crf: x264's quality, in [0, 51]; lower is better.
        preset: x264's speed, `ultrafast` to `veryslow`.
        device: `auto` (cuda, mps or cpu, the first there is) or a torch device.
    """

    size: Literal["source", "model"]
    crf: int
    preset: Preset
    device: str

    def __post_init__(self) -> None:
        check(0 <= self.crf <= 51, "crf", self.crf, "in [0, 51]")


def decoding_with(values: Mapping[str, Any]) -> Decoding:
    """The values of `conf/decode.yaml`, with these in place of their own, for a video that is decoded in this process.

    Raises:
        ConfigError: there is no such value, or it cannot be that, or it means nothing here.
    """
    refuse_meaningless(values, ("device",))
    decoding: Decoding = build(command_config("decode", [], values), "")
    return decoding


def decode_video(
    tokenizer: Autoencoder, decoding: Decoding, work: InferenceSettings, video: TokenVideo, path: Path
) -> None:
    """Write the video that tokens stand for, frame by frame at its times, computed where the tokenizer is.

    The file appears when it is complete.

    Raises:
        StorageError: it cannot be written.
        DataError: x264 takes no frames of that size.
        CheckpointError: the tokens are not of this tokenizer.
    """
    rows, columns = video.codes.shape[1:3]
    _, height, width = tokenizer.downsampling
    size = (video.width, video.height) if decoding.size == "source" else (columns * width, rows * height)
    batches = reconstructions(tokenizer, work, video)
    with evaluating(tokenizer):
        write_frames(path, itertools.chain.from_iterable(batches), size, video, decoding)


def reconstructions(tokenizer: Autoencoder, work: InferenceSettings, video: TokenVideo) -> Iterator[Frames]:
    """The frames that tokens stand for, in the batches in which they were encoded.

    Raises:
        CheckpointError: the tokens are not of this tokenizer.
    """
    if tokenizer.downsampling.times(video.frames) != len(video.codes):
        raise CheckpointError(
            f"The tokens of {video.path} are not of this tokenizer: {len(video.codes)} times of codes for "
            f"{video.frames} frames."
        )
    times, memory, left = parts_for(tokenizer, work.batch_frames).times, Memory(), video.frames
    for first in range(0, len(video.codes), times):
        codes = torch.from_numpy(video.codes[first : first + times].astype(np.int64))
        try:
            frames = decode_batch(tokenizer, codes, work, memory)[:left].numpy()
        except ValueError as error:
            raise CheckpointError(f"The tokens of {video.path} are not of this tokenizer: {error}") from None
        left -= len(frames)
        yield frames


def write_frames(
    path: Path,
    frames: Iterator[UInt8[np.ndarray, "height width rgb"]],
    size: tuple[int, int],
    video: TokenVideo,
    decoding: Decoding,
) -> None:
    """Write frames at the times of `video`; h264 in mp4 has even sides, so an odd one is one pixel shorter.

    Raises:
        StorageError: the file cannot be written.
        DataError: x264 takes no frames of that size.
    """
    width, height = (max(2, side // 2 * 2) for side in size)
    rate, time_base = Fraction(video.fps), Fraction(video.time_base)
    options = {"crf": str(decoding.crf), "preset": decoding.preset}
    try:
        with storing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with whole(path) as aside, VideoWriter(aside, width, height, rate, time_base, options) as target:
                for frame, time in zip(frames, video.times.tolist()):
                    target.add(frame, time)
    except av.FFmpegError as error:  # x264's, of sides that it does not take; those of the disk are OSErrors too
        raise DataError(
            f"{path} cannot be written: {width}×{height} pixels cannot be encoded ({error.strerror or error}). "
            "size=model writes videos as small as the network gives them."
        ) from None
