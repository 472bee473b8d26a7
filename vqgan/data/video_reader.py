"""Reading some frames of a video: exactly those, as rgb, upright, at the size that is asked for."""

from __future__ import annotations

import itertools
import os
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream
from jaxtyping import Int, UInt8

from vqgan.data.bad_files import UnusableError
from vqgan.data.video_container import Packet, decoded, open_video, packets_of
from vqgan.data.video_file import VideoFile

# How many keyframes before a frame decoding starts, one after the other until the frame is found. A container may seek
# too far where keyframes are closer than the decoder's delay.
KEYFRAMES_BACK = (1, 4)

# Files stay open for the next clip as long as their frames have no more pixels than this together: four of 720p.
MOST_OPEN_PIXELS = 2**22

# Without exact rounding, frames that keep their size have columns that are never written.
EXACT_BILINEAR = Interpolation.BILINEAR | Interpolation.ACCURATE_RND

Rgb = UInt8[np.ndarray, "h w 3"]


@dataclass
class _Opened:
    """A video that is open, with the scaler that knows its frames."""

    container: InputContainer
    stream: VideoStream
    state: os.stat_result  # of the file, by which a later one under the same name is told from it
    scaler: VideoReformatter = field(default_factory=VideoReformatter)

    @property
    def pixels(self) -> int:
        return self.stream.width * self.stream.height


class _OpenVideos:
    """The videos that this process read last."""

    def __init__(self) -> None:
        self.videos: OrderedDict[Path, _Opened] = OrderedDict()

    def take(self, path: Path, anew: bool) -> _Opened:
        """The video, open, and with `anew` at its beginning; nobody else has it until it is put back."""
        state = path.stat()
        found = self.videos.pop(path, None)
        if found is not None and not anew and _same_file(found.state, state):
            return found
        if found is not None:
            found.container.close()
        return _Opened(*open_video(path), state)

    def put_back(self, path: Path, opened: _Opened) -> None:
        """Keep it open, and close the one that was not used for longest, if there are too many."""
        self.videos[path] = opened
        while sum(video.pixels for video in self.videos.values()) > MOST_OPEN_PIXELS:
            self.videos.popitem(last=False)[1].container.close()

    def forget(self) -> None:
        """Close all."""
        while self.videos:
            self.videos.popitem()[1].container.close()


def _same_file(a: os.stat_result, b: os.stat_result) -> bool:
    return (a.st_dev, a.st_ino, a.st_size, a.st_mtime_ns) == (b.st_dev, b.st_ino, b.st_size, b.st_mtime_ns)


_open_videos = _OpenVideos()
if hasattr(os, "register_at_fork"):  # a position in a file would be shared with the process that it was opened in
    os.register_at_fork(after_in_child=_open_videos.forget)


def read_frames(
    video: VideoFile, positions: Int[np.ndarray, "time"], resolution: int
) -> UInt8[np.ndarray, "time h w 3"]:
    """Frames at `positions` (rising, repeats allowed) as rgb, upright, the shorter side scaled to `resolution`.

    Colours follow the file's tags; without a matrix tag they are taken as BT.601, without a range tag as limited.

    Raises:
        UnusableError: one of them cannot be decoded, or is damaged.
    """
    wanted = video.pts[positions].tolist()
    keyframes = video.keyframes[video.keyframes <= wanted[0]]
    starts = [int(keyframes[-back]) for back in KEYFRAMES_BACK if back <= len(keyframes)]
    found: dict[int, Rgb] = {}
    try:
        for start in (*starts, None):
            found = _decode(video, set(wanted), resolution, start)
            if len(found) == len(set(wanted)):
                break
    except (av.FFmpegError, OSError) as error:
        raise UnusableError(f"decoding failed: {error.strerror or error}") from None
    lost = set(wanted) - set(found)
    if lost:
        raise UnusableError(f"damaged: {len(lost)} frames cannot be decoded")
    frames = np.rot90(np.stack([found[pts] for pts in wanted]), video.rotation // 90, axes=(1, 2))
    return np.ascontiguousarray(frames[:, :, ::-1] if video.mirrored else frames)


def _decode(video: VideoFile, wanted: set[int], resolution: int, start: int | None) -> dict[int, Rgb]:
    """The frames that can be decoded from the keyframe at time `start` on, or from the file's beginning."""
    opened = _open_videos.take(video.path, anew=start is None)
    try:
        found = _decode_opened(opened, video, wanted, resolution, start)
    except BaseException:
        opened.container.close()
        raise
    _open_videos.put_back(video.path, opened)
    return found


def _decode_opened(
    opened: _Opened, video: VideoFile, wanted: set[int], resolution: int, start: int | None
) -> dict[int, Rgb]:
    first, last = min(wanted), max(wanted)
    width, height = video.scaled_size(resolution)
    packets = packets_of(opened.container, opened.stream)
    if start is not None:
        opened.container.seek(start, stream=opened.stream, backward=True)
        packets = _from_keyframe(packets, first)
    if len(video.keyframes):
        packets = _hurried(packets, opened.stream, first)
    found: dict[int, Rgb] = {}
    for count, frame in enumerate(decoded(packets)):
        pts = frame.pts if len(video.keyframes) else count
        if pts is not None and pts in wanted and not frame.is_corrupt:
            found[pts] = _to_rgb(opened.scaler, frame, width, height)
        if pts is not None and pts >= last:
            break
    return found


def _from_keyframe(packets: Iterator[Packet], first: int) -> Iterator[Packet]:
    """Packets from the next keyframe on; none if it is shown after `first`, for then the container seeked too far."""
    packets = itertools.dropwhile(lambda packet: not packet.is_keyframe, packets)
    start = next(packets, None)
    if start is not None and start.pts is not None and start.pts <= first:
        yield start
        yield from packets


def _hurried(packets: Iterator[Packet], stream: VideoStream, first: int) -> Iterator[Packet]:
    """On the way to `first` frames that no other refers to are skipped; the wanted ones stay bit-exact."""
    # External decoders (libdav1d) work behind the packets they were given, and would skip wanted frames.
    external = stream.codec_context.name.startswith("lib")
    for packet in packets:
        before = not external and packet.pts is not None and packet.pts < first
        stream.codec_context.skip_frame = "NONREF" if before else "DEFAULT"
        yield packet


def _to_rgb(scaler: VideoReformatter, frame: VideoFrame, width: int, height: int) -> Rgb:
    # The source's matrix and range are the frame's own. To rgb24 directly swscale would halve the colours' resolution
    # and darken every value by one to two levels, in twice the time; to planes it does neither.
    planes = scaler.reformat(
        frame, width, height, "gbrp", interpolation=EXACT_BILINEAR, dst_color_range="JPEG", threads=1
    )  # fmt: skip
    return planes.to_ndarray()
