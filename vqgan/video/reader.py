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

from vqgan.errors import UnusableError
from vqgan.video.container import Packet, decoded, open_video, packets_of
from vqgan.video.file import VideoFile

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
    state: os.stat_result | None  # of the file, by which a later one under the same name is told from it
    scaler: VideoReformatter = field(default_factory=VideoReformatter)

    @property
    def pixels(self) -> int:
        return self.stream.width * self.stream.height


class _OpenVideos:
    """The videos that this process read last."""

    def __init__(self) -> None:
        self.videos: OrderedDict[Path, _Opened] = OrderedDict()

    def take(self, video: VideoFile, anew: bool) -> _Opened:
        """The video, open, and with `anew` at its beginning; nobody else has it until it is put back."""
        if video.content is not None:
            return _Opened(*open_video(video.path, video.content), None)
        state = video.path.stat()
        found = self.videos.pop(video.path, None)
        if found is not None and not anew and _same_file(found.state, state):
            return found
        if found is not None:
            found.container.close()
        return _Opened(*open_video(video.path), state)

    def put_back(self, video: VideoFile, opened: _Opened) -> None:
        """Keep it open, and close the one that was not used for longest, if there are too many."""
        if opened.state is None:  # it is in memory, and will not be asked for again
            opened.container.close()
            return
        self.videos[video.path] = opened
        while sum(video.pixels for video in self.videos.values()) > MOST_OPEN_PIXELS:
            self.videos.popitem(last=False)[1].container.close()

    def forget(self) -> None:
        """Close all."""
        while self.videos:
            self.videos.popitem()[1].container.close()


def _same_file(a: os.stat_result | None, b: os.stat_result) -> bool:
    same = ("st_dev", "st_ino", "st_size", "st_mtime_ns")
    return all(getattr(a, name, None) == getattr(b, name) for name in same)


_open_videos = _OpenVideos()


if hasattr(os, "register_at_fork"):  # a position in a file would be shared with the process that it was opened in
    os.register_at_fork(after_in_child=_open_videos.forget)


def read_frames(
    video: VideoFile, positions: Int[np.ndarray, "time"], resolution: int, multiple: int = 1
) -> UInt8[np.ndarray, "time h w 3"]:
    """Frames at `positions` (rising, repeats allowed) as rgb, upright, the shorter side scaled to `resolution`.

    Colours follow the file's tags; without a matrix tag they are taken as BT.601, without a range tag as limited.

    Args:
        video: the file.
        positions: in its list of frames.
        resolution: of the shorter side.
        multiple: the longer side is rounded to a multiple of it.

    Raises:
        UnusableError: one of them cannot be decoded, or is damaged.
    """
    wanted = video.pts[positions].tolist()
    size = video.scaled_size(resolution, multiple)
    keyframes = video.keyframes[video.keyframes <= wanted[0]]
    starts = [int(keyframes[-back]) for back in KEYFRAMES_BACK if back <= len(keyframes)]
    found: dict[int, Rgb] = {}
    try:
        for start in (*starts, None):
            found = _decode(video, set(wanted), size, start)
            if len(found) == len(set(wanted)):
                break
    except (av.FFmpegError, OSError) as error:
        raise UnusableError(f"decoding failed: {error.strerror or error}") from None
    lost = set(wanted) - set(found)
    if lost:
        raise UnusableError(f"damaged: {len(lost)} frames cannot be decoded")
    return _upright(video, [found[pts] for pts in wanted])


class FrameStream:
    """Frames of one video in their order, in one pass over the file: no frame is decoded twice.

    Args:
        video: the file.
        positions: of the frames, rising, repeats allowed.
        resolution: of the shorter side.
        multiple: the longer side is rounded to a multiple of it.
    """

    def __init__(self, video: VideoFile, positions: Int[np.ndarray, "time"], resolution: int, multiple: int) -> None:
        self.video, self.positions, self.resolution, self.multiple = video, positions, resolution, multiple
        self.opened: _Opened | None = None
        self.frames: Iterator[tuple[int | None, VideoFrame]] = iter(())
        self.current: tuple[int, VideoFrame] | None = None  # the frame decoded last, and its time
        self.next = 0  # where the next read goes on without seeking

    def read(self, first: int, count: int) -> UInt8[np.ndarray, "time h w 3"]:
        """Frames at `positions[first : first + count]`, as `read_frames` gives them.

        Raises:
            UnusableError: one of them cannot be decoded, or is damaged.
        """
        positions = self.positions[first : first + count]
        try:
            if first != self.next or self.opened is None:
                self._seek(int(positions[0]))
            frames = self._take(self.video.pts[positions].tolist())
        except (av.FFmpegError, OSError) as error:
            self.close()
            raise UnusableError(f"decoding failed: {error.strerror or error}") from None
        if frames is None:  # some files need a start further back, or give their frames out of order
            self.close()
            return read_frames(self.video, positions, self.resolution, self.multiple)
        self.next = first + len(positions)
        return _upright(self.video, frames)

    def close(self) -> None:
        """Close the file; the next read opens it again."""
        if self.opened is not None:
            self.opened.container.close()
        self.opened, self.frames, self.current = None, iter(()), None

    def _seek(self, position: int) -> None:
        self.close()
        first = int(self.video.pts[position])
        keyframes = self.video.keyframes[self.video.keyframes <= first]
        start = int(keyframes[-1]) if position and len(keyframes) else None
        self.opened = _Opened(*open_video(self.video.path), self.video.path.stat())
        self.frames = _frames_from(self.opened, self.video, start, first)

    def _take(self, wanted: list[int]) -> list[Rgb] | None:
        """The frames of these times; None if one is not among those that come."""
        assert self.opened is not None
        size = self.video.scaled_size(self.resolution, self.multiple)
        found: dict[int, Rgb] = {}
        for pts in wanted:
            while self.current is None or self.current[0] < pts:
                time, frame = next(self.frames, (None, None))
                if frame is None:
                    return None
                if time is not None and not frame.is_corrupt:
                    self.current = time, frame
            if self.current[0] != pts:
                return None
            if pts not in found:
                found[pts] = _to_rgb(self.opened.scaler, self.current[1], *size)
        return [found[pts] for pts in wanted]


def _upright(video: VideoFile, frames: list[Rgb]) -> UInt8[np.ndarray, "time rows columns 3"]:
    turned = np.rot90(np.stack(frames), video.rotation // 90, axes=(1, 2))
    return np.ascontiguousarray(turned[:, :, ::-1] if video.mirrored else turned)


def _decode(video: VideoFile, wanted: set[int], size: tuple[int, int], start: int | None) -> dict[int, Rgb]:
    """The frames that can be decoded from the keyframe at time `start` on, or from the file's beginning."""
    opened = _open_videos.take(video, anew=start is None)
    try:
        found: dict[int, Rgb] = {}
        for pts, frame in _frames_from(opened, video, start, min(wanted)):
            if pts is not None and pts in wanted and not frame.is_corrupt:
                found[pts] = _to_rgb(opened.scaler, frame, *size)
            if pts is not None and pts >= max(wanted):
                break
    except BaseException:
        opened.container.close()
        raise
    _open_videos.put_back(video, opened)
    return found


def _frames_from(
    opened: _Opened, video: VideoFile, start: int | None, first: int
) -> Iterator[tuple[int | None, VideoFrame]]:
    """Frames with their times; those before `first` perhaps not all."""
    packets = packets_of(opened.container, opened.stream)
    if start is not None:
        opened.container.seek(start, stream=opened.stream, backward=True)
        packets = _from_keyframe(packets, first)
    if len(video.keyframes):
        packets = _hurried(packets, opened.stream, first)
    for count, frame in enumerate(decoded(packets)):
        yield frame.pts if len(video.keyframes) else count, frame


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
