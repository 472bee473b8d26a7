"""`codec:`, video codecs as yardsticks: what they need for the same frames, and what is left of them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from av.codec.context import Flags
from av.video.codeccontext import VideoCodecContext
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from jaxtyping import UInt8
from torch import Tensor

from vqgan.errors import ConfigError, DataError, check
from vqgan.evaluation.reconstructor import Group, Reconstructed, Reconstructor
from vqgan.runtime.processor import usual_priority
from vqgan.video.container import Packet

BITEXACT_SCALING = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
START_CODE = re.compile(rb"\x00\x00\x00?\x01")  # between the units of H.264 and HEVC
AV1_DELIMITER = b"\x12\x00"  # an open bitstream unit that says only that a frame begins; files do without
Rgb = UInt8[np.ndarray, "height width 3"]


@dataclass(frozen=True)
class Coder:
    """A codec of which a curve can be drawn.

    Args:
        decoder: that reads what it writes.
        dropped: kinds of units that are not counted: parameter sets, which a header has once, and remarks.
    """

    decoder: str
    dropped: frozenset[int]

    def unit(self, head: int) -> int:
        """The kind of a unit by its first byte: H.264 has it in the lower five bits, HEVC in the middle ones."""
        return head >> 1 & 63 if self.decoder == "hevc" else head & 31


CODERS = {
    "libx264": Coder("h264", frozenset({6, 7, 8, 9})),  # SEI, sequence and picture parameters, delimiter
    "libx265": Coder("hevc", frozenset({32, 33, 34, 35, 39, 40})),  # VPS, SPS, PPS, delimiter, SEI
    "libsvtav1": Coder("libdav1d", frozenset()),
}


class Codec(Reconstructor):
    """One point of a codec's curve.

    All clips of a video are encoded one after the other as one video, and its bits are the packets' own: no container,
    no parameter sets (once a video, some 40 to 80 bytes), and none of x264's remarks about itself.

    Args:
        name: of the encoder, as FFmpeg calls it.
        quality: its constant rate factor; higher is coarser.
        pixels: as FFmpeg calls the format; `yuv420p` halves the resolution of colour, as nearly all video does.
        rate: frames a second that the encoder is told.
        options: of the encoder.

    Raises:
        ConfigError: there is no such codec here.
    """

    yardstick = True

    def __init__(self, name: str, quality: float, pixels: str, rate: float, options: Mapping[str, Any]) -> None:
        check(rate > 0, f"codecs.{name}.rate", rate, "positive")
        self.codec, self.quality, self.pixels, self.rate = name, quality, pixels, rate
        self.options = {key: str(value) for key, value in options.items()} | {"crf": f"{quality:g}"}
        self.coder = CODERS[name]
        os.environ.setdefault("SVT_LOG", "1")  # or SVT-AV1 fills the screen

    @property
    def name(self) -> str:
        """What its column is called."""
        return f"{self.codec} crf={self.quality:g}"

    @property
    def remarks(self) -> list[str]:
        """See `Reconstructor`."""
        return [
            f"{self.pixels}, {self._values()}; each video's clips as one video, which looks ahead; bits are those of "
            "its packets, without container and parameter sets"
        ]

    def _values(self) -> str:
        return ", ".join(f"{key}={value}" for key, value in self.options.items() if key != "crf") or "its own options"

    @property
    def curve(self) -> str:
        """The encoder."""
        return self.codec

    def reconstruct(self, groups: Iterable[Group], device: torch.device) -> Iterator[Reconstructed]:
        """See `Reconstructor`; originals wait for as long as the encoder looks ahead."""
        singles = ((path, clip) for paths, clips in groups for path, clip in zip(paths, clips))
        for path, of_video in groupby(singles, key=lambda single: single[0]):
            yield from self._video(path, (clip for _, clip in of_video), device)

    def _video(self, path: Path, clips: Iterable[Tensor], device: torch.device) -> Iterator[Reconstructed]:
        waiting: list[Tensor] = []
        shape: tuple[int, ...] = ()
        pipe: _Pipe | None = None

        def ready(pipe: _Pipe) -> Iterator[Reconstructed]:
            while waiting and len(pipe.decoded) >= len(waiting[0]):
                clip = waiting.pop(0)
                frames, bits = pipe.take(len(clip))
                made = torch.from_numpy(np.stack(frames))[None].to(device)
                yield Reconstructed([path], clip[None].to(device), made, bits=torch.tensor([float(bits)]))

        try:
            for clip in clips:
                shape = tuple(clip.shape[1:3])
                pipe = pipe or _Pipe(self, *reversed(shape))
                waiting.append(clip.cpu())
                for frame in waiting[-1].numpy():
                    pipe.add(frame)
                yield from ready(pipe)
            if pipe is not None:
                pipe.end()
                yield from ready(pipe)
        except (av.FFmpegError, ValueError) as error:
            raise ConfigError(
                f"{self.name} cannot encode frames of {shape[1]}×{shape[0]} in {self.pixels} with {self._values()}: "
                f"{str(error).partition(':')[0]}."
            ) from error
        if waiting:
            raise DataError(f"{self.name} gives fewer frames of {path.name} than it got.")


class _Pipe:
    """Frames through encoder and decoder at once, with the bits of each."""

    def __init__(self, codec: Codec, width: int, height: int) -> None:
        if codec.pixels.startswith("yuv420") and (width % 2 or height % 2):
            raise ConfigError(f"{codec.name} takes even sides in {codec.pixels}, and frames have {width}×{height}.")
        self.coder, self.pixels = codec.coder, codec.pixels
        rate = Fraction(codec.rate).limit_denominator(1001)
        encoder = av.CodecContext.create(codec.codec, "w")
        assert isinstance(encoder, VideoCodecContext)
        self.encoder = encoder
        encoder.width, encoder.height, encoder.pix_fmt = width, height, codec.pixels
        encoder.time_base, encoder.framerate = 1 / rate, rate
        encoder.colorspace, encoder.color_range = Colorspace.SMPTE170M, ColorRange.MPEG  # BT.601, limited
        encoder.flags |= Flags.global_header  # parameter sets once, beside the packets
        encoder.options = codec.options
        encoder.thread_count = 1  # how many threads there are must not change the bits
        with usual_priority():
            encoder.open()
        decoder = av.CodecContext.create(codec.coder.decoder, "r")
        assert isinstance(decoder, VideoCodecContext)
        decoder.extradata, decoder.thread_count = encoder.extradata, 1
        self.decoder = decoder
        self.to_yuv, self.to_rgb = VideoReformatter(), VideoReformatter()
        self.decoded: list[Rgb] = []
        self.bits: dict[int, int] = {}  # by number of the frame
        self.added, self.taken = 0, 0

    def add(self, frame: Rgb) -> None:
        """The next frame."""
        picture = self.to_yuv.reformat(
            av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24"), format=self.pixels,
            dst_colorspace=Colorspace.SMPTE170M, dst_color_range=ColorRange.MPEG, interpolation=BITEXACT_SCALING,
        )  # fmt: skip
        picture.pts, picture.time_base = self.added, self.encoder.time_base
        self.added += 1
        self._decode(self.encoder.encode(picture))

    def end(self) -> None:
        """No frame comes any more."""
        self._decode(self.encoder.encode(None))
        self._keep(self.decoder.decode(None))

    def take(self, count: int) -> tuple[list[Rgb], int]:
        """The first frames that nobody took, and their bits."""
        frames, self.decoded = self.decoded[:count], self.decoded[count:]
        bits = sum(self.bits.pop(number, 0) for number in range(self.taken, self.taken + count))
        self.taken += count
        return frames, bits

    def _decode(self, packets: Sequence[Packet]) -> None:
        for packet in packets:
            assert packet.pts is not None
            self.bits[packet.pts] = self.bits.get(packet.pts, 0) + 8 * payload(bytes(packet), self.coder)
            self._keep(self.decoder.decode(packet))

    def _keep(self, pictures: Sequence[av.VideoFrame]) -> None:
        for picture in pictures:
            rgb = self.to_rgb.reformat(
                picture, format="rgb24", src_colorspace=Colorspace.SMPTE170M, src_color_range=ColorRange.MPEG,
                interpolation=BITEXACT_SCALING,
            )  # fmt: skip
            self.decoded.append(rgb.to_ndarray())


def payload(packet: bytes, coder: Coder) -> int:
    """The bytes of a packet that its frame needs.

    In H.264 and HEVC units that a stream has once (see `Coder`) are left out, of AV1 the delimiter before each frame.
    x264 writes some 600 bytes about itself into the first packet, which would be a third of a short clip of 64 pixels.
    """
    if not coder.dropped:
        return len(packet) - len(AV1_DELIMITER) * packet.startswith(AV1_DELIMITER)
    starts = [*START_CODE.finditer(packet)]
    ends = [found.start() for found in starts[1:]] + [len(packet)]
    return sum(
        end - found.start() for found, end in zip(starts, ends) if coder.unit(packet[found.end()]) not in coder.dropped
    )
