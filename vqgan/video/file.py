"""One video file: where its frames are."""

from __future__ import annotations

import gc
import json
import math
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.buffer import Buffer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from jaxtyping import Float, Int

from vqgan.errors import UnusableError
from vqgan.video.container import Packet, decoded, lacks_its_index, open_video, packets_of, until_error
from vqgan.video.crop import check_size

# Containers whose packets carry decoding, not presentation times: where a codec reorders, frames are counted.
TIMELESS = {"avi"}
CUT_OFF = "truncated"  # what a complaint of a file begins with whose end is missing
INDEX_VERSION = 1  # of what `scan_video` finds
LARGEST_UNPACKED = 2**27  # bytes: what is known of 16 million frames
PACKED = ("time_base", "width", "height", "pixel_aspect", "rotation", "mirrored")


@dataclass(frozen=True)
class VideoFile:
    """What was learned from one pass over a file's packets.

    `pts` are the presentation times of all frames in rising order, in units of `time_base` seconds; a clip is
    addressed by positions in this list, never by frame-rate arithmetic. `keyframes` are those at which decoding can
    start; it is empty where times cannot be trusted, and then decoding starts at the file's beginning.
    """

    path: Path
    pts: Int[np.ndarray, "frames"]
    keyframes: Int[np.ndarray, "keys"]
    time_base: float
    width: int  # as stored, before rotation
    height: int
    pixel_aspect: float  # width of a stored pixel over its height
    rotation: int  # counter-clockwise, degrees in {0, 90, 180, 270}
    mirrored: bool  # left and right change places after the rotation
    content: bytes | None = field(default=None, repr=False)  # of the file, if it is in memory

    @property
    def seconds(self) -> Float[np.ndarray, "frames"]:
        """Time of each frame, the first at 0."""
        return (self.pts - self.pts[0]) * self.time_base

    def pack(self) -> bytes:
        """All but the path, small: times become differences, which repeat."""
        values = {name: getattr(self, name) for name in PACKED}
        arrays = [np.diff(times.astype("<i8"), prepend=0) for times in (self.pts, self.keyframes)]
        head = json.dumps({**values, "frames": len(self.pts)}).encode()
        return zlib.compress(head + b"\n" + b"".join(array.tobytes() for array in arrays), 1)

    @classmethod
    def unpack(cls, path: Path, packed: bytes, content: bytes | None = None) -> VideoFile:
        """What was packed, of the file at `path`, or with this content.

        Raises:
            ValueError: it is damaged.
        """
        try:
            unpacker = zlib.decompressobj()
            head, _, arrays = unpacker.decompress(packed, LARGEST_UNPACKED).partition(b"\n")
            if not unpacker.eof:
                raise ValueError("it has no end")
            values = json.loads(head)
            times = np.frombuffer(arrays, "<i8")
            pts, keyframes = (part.cumsum() for part in np.split(times, [values.pop("frames")]))
            return cls(path, pts, keyframes, **values, content=content)
        except (zlib.error, ValueError, TypeError, LookupError) as error:
            raise ValueError(f"the index of {path} is damaged: {error}") from None

    def scaled_size(self, resolution: int, multiple: int = 1) -> tuple[int, int]:
        """Stored (width, height) scaled so that the shorter displayed side is `resolution`, the longer one a multiple.

        `resolution` itself must be one.
        """
        width = self.width * self.pixel_aspect
        scale = resolution / min(width, self.height) / multiple
        scaled = [max(resolution, round(side * scale) * multiple) for side in (width, self.height)]
        return scaled[0], scaled[1]

    @property
    def displayed_size(self) -> tuple[int, int]:
        """(width, height) in pixels of the stored height, upright."""
        width, height = max(1, round(self.width * self.pixel_aspect)), self.height
        return (height, width) if self.rotation % 180 else (width, height)


@dataclass(frozen=True)
class _PacketIndex:
    """What the packets of a file say without being decoded."""

    times: list[int | None]
    keyframes: list[int]
    missing: int  # packets that the header declares and the file lacks
    timeless: bool
    time_base: float
    frame_rate: float


def scan_video(path: Path, content: bytes | None = None) -> tuple[VideoFile, str | None]:
    """Index a file by demuxing it and decoding its first frame.

    Args:
        path: of the file.
        content: of the file, if it is in memory.

    Returns:
        The index, and a complaint if the file is damaged but usable in part.

    Raises:
        UnusableError: it holds no video that can be decoded.
    """
    try:
        index = _index_packets(path, content)
        container, stream = open_video(path, content)
        with container:
            frames = decoded(packets_of(container, stream))
            first = next(frames, None)
            if first is None:
                raise UnusableError("no frames")
            # What is shown before the first frame that decodes belongs to a keyframe that was cut off.
            times = [time for time in index.times if time is not None and first.pts is not None and time >= first.pts]
            if index.timeless or first.pts not in times or None in index.times or len(set(times)) < len(times):
                pts = np.arange(1 + sum(1 for _ in until_error(frames)))
                keyframes, time_base = np.empty(0, np.int64), 1 / index.frame_rate
            else:
                pts = np.array(sorted(times), np.int64)
                keyframes, time_base = np.array(sorted(index.keyframes), np.int64), index.time_base
            aspect = float(stream.sample_aspect_ratio or 1)
            video = VideoFile(
                path, pts, keyframes, time_base, first.width, first.height, aspect, *_orientation(first), content
            )  # fmt: skip
            del first, frames
            gc.collect(1)  # a frame whose side data were looked at is in a cycle of references, and may be large
    except av.FFmpegError as error:
        if lacks_its_index(path, content):
            raise UnusableError(
                "unreadable: its index (moov atom) is not found: it was cut off, or is damaged"
            ) from None
        raise UnusableError(f"unreadable: {error.strerror or error}") from None
    check_size(video.width * video.pixel_aspect, video.height)
    declared = len(index.times) + index.missing
    return video, f"{CUT_OFF}: {index.missing} of {declared} frames are missing" if index.missing > 0 else None


def _index_packets(path: Path, content: bytes | None) -> _PacketIndex:
    container, stream = open_video(path, content)
    with container:
        declared = stream.frames
        time_base, frame_rate = float(stream.time_base or 0), float(stream.average_rate or 25)
        counted = stream.codec_context.codec.reorder and not TIMELESS.isdisjoint(container.format.name.split(","))
        packets = [
            (packet.pts, packet.is_keyframe, packet.is_discard or _invisible(packet, stream))
            for packet in packets_of(container, stream)
            if packet.size
        ]
    return _PacketIndex(
        times=[pts for pts, _, hidden in packets if not hidden],
        keyframes=[pts for pts, keyframe, _ in packets if keyframe and pts is not None],
        missing=declared - len(packets),
        timeless=counted or not time_base,
        time_base=time_base,
        frame_rate=frame_rate,
    )


def _invisible(packet: Packet, stream: VideoStream) -> bool:
    """Whether a packet of VP8 holds a frame that is only referred to, never shown."""
    return stream.codec_context.name in {"vp8", "libvpx"} and not bytes(packet)[0] >> 4 & 1


def _orientation(frame: VideoFrame) -> tuple[int, bool]:
    """The rotation (degrees counter-clockwise, a multiple of 90) and the mirroring that make a frame upright."""
    side_data = frame.side_data.get("DISPLAYMATRIX")
    if side_data is None:
        return 0, False
    # A stored point (x, y) is shown at (a·x + c·y, b·x + d·y), y down.
    a, b, _, c, d = np.frombuffer(bytes(cast(Buffer, side_data)), np.int32)[:5].tolist()
    mirrored = a * d < b * c
    if mirrored:
        a = -a
    return -round(math.degrees(math.atan2(b, a)) / 90) % 4 * 90, mirrored
