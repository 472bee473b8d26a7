"""One video file: where its frames are, reading some of them exactly, and writing one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TypeVar

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from jaxtyping import Float, Int, UInt8

from vqgan.data.folder import UnusableError

# No file may reach beyond itself, and none may ask for memory before its size is known.
OPEN_OPTIONS = {"protocol_whitelist": "file", "max_pixels": str(2**26)}
MIN_SIDE, MAX_ASPECT = 16, 16
# Containers whose packets carry decoding, not presentation times: frames are counted from the start.
TIMELESS = {"avi"}

T = TypeVar("T")


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

    @property
    def seconds(self) -> Float[np.ndarray, "frames"]:
        """Time of each frame, the first at 0."""
        return (self.pts - self.pts[0]) * self.time_base

    def scaled_size(self, resolution: int) -> tuple[int, int]:
        """Stored (width, height) scaled so that the shorter displayed side is `resolution`."""
        width = self.width * self.pixel_aspect
        scale = resolution / min(width, self.height)
        return max(resolution, round(width * scale)), max(resolution, round(self.height * scale))


def scan_video(path: Path) -> tuple[VideoFile, str | None]:
    """Index a file by demuxing it and decoding its first frame.

    Returns:
        The index, and a complaint if the file is damaged but usable in part.

    Raises:
        UnusableError: it holds no video that can be decoded.
    """
    try:
        with _open(path) as (container, stream):
            timeless = not TIMELESS.isdisjoint(container.format.name.split(","))
            declared = stream.frames
            packets = [(p.pts, p.is_keyframe) for p in _packets(container, stream) if p.size and not p.is_discard]
            time_base = float(stream.time_base or 0)
            rate = float(stream.average_rate or 25)
        times = [pts for pts, _ in packets if pts is not None]
        with _open(path) as (container, stream):
            first = next(container.decode(stream), None)
            if first is None:
                raise UnusableError("no frames")
            if timeless or len(set(times)) < len(packets):
                count = 1 + sum(1 for _ in _until_error(container.decode(stream)))
                pts, keyframes, time_base = np.arange(count), np.empty(0, np.int64), 1 / rate
            else:
                pts = np.array(sorted(times), np.int64)
                keyframes = np.array(sorted(t for t, key in packets if key and t is not None), np.int64)
            aspect = stream.sample_aspect_ratio or Fraction(1)
            video = VideoFile(
                path, pts, keyframes, time_base, first.width, first.height, float(aspect) or 1.0, first.rotation % 360
            )
    except av.FFmpegError as error:
        raise UnusableError(f"unreadable: {error.strerror or error}") from None
    _check_size(video)
    missing = declared - len(video.pts)
    complaint = f"truncated: only {len(video.pts)} of {declared} frames can be read" if missing > 0 else None
    return video, complaint


def read_frames(
    video: VideoFile, positions: Int[np.ndarray, "time"], resolution: int
) -> UInt8[np.ndarray, "time h w 3"]:
    """Frames at `positions` (rising, repeats allowed) as rgb, upright, the shorter side scaled to `resolution`.

    Raises:
        UnusableError: one of them cannot be decoded, or is damaged.
    """
    wanted = video.pts[positions]
    try:
        found = _decode(video, set(wanted.tolist()), resolution, seek=True)
        if len(found) < len(set(wanted.tolist())):  # a container that seeks too far, or an open group of pictures
            found = _decode(video, set(wanted.tolist()), resolution, seek=False)
    except av.FFmpegError as error:
        raise UnusableError(f"decoding failed: {error.strerror or error}") from None
    lost = [pts for pts in wanted.tolist() if pts not in found]
    if lost:
        raise UnusableError(f"damaged: {len(set(lost))} frames cannot be decoded")
    frames = np.stack([found[pts] for pts in wanted.tolist()])
    return np.ascontiguousarray(np.rot90(frames, video.rotation // 90, axes=(1, 2)))


def write_video(path: Path, frames: UInt8[np.ndarray, "time h w 3"], fps: int) -> None:
    """Write frames as h264 in mp4, which every browser plays; sides must be even.

    Raises:
        OSError: the file cannot be written.
    """
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "12", "threads": "1"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def _decode(video: VideoFile, wanted: set[int], resolution: int, seek: bool) -> dict[int, UInt8[np.ndarray, "h w 3"]]:
    first, last = min(wanted), max(wanted)
    width, height = video.scaled_size(resolution)
    scaler = VideoReformatter()
    found: dict[int, UInt8[np.ndarray, "h w 3"]] = {}
    with _open(video.path) as (container, stream):
        starts = video.keyframes[video.keyframes <= first]
        if seek and len(starts):
            container.seek(int(starts[-1]), stream=stream, backward=True)
        for count, frame in enumerate(_frames_from(container, stream, first, video.keyframes)):
            pts = frame.pts if len(video.keyframes) else count
            if pts is not None and pts in wanted and not frame.is_corrupt:
                found[pts] = _to_rgb(scaler, frame, width, height)
            if pts is not None and pts >= last:
                break
    return found


def _frames_from(
    container: InputContainer, stream: VideoStream, first: int, keyframes: Int[np.ndarray, "keys"]
) -> Iterator[VideoFrame]:
    """Decode; on the way to `first`, frames that no other refers to are skipped (the wanted ones stay bit-exact)."""
    for packet in _packets(container, stream):
        before = len(keyframes) > 0 and packet.pts is not None and packet.pts < first
        stream.codec_context.skip_frame = "NONREF" if before else "DEFAULT"
        yield from packet.decode()


def _to_rgb(scaler: VideoReformatter, frame: VideoFrame, width: int, height: int) -> UInt8[np.ndarray, "h w 3"]:
    rgb = scaler.reformat(
        frame, width, height, "rgb24", interpolation="BILINEAR",
        src_color_range=frame.color_range, dst_color_range="JPEG", threads=1,
    )  # fmt: skip
    return rgb.to_ndarray()


def _packets(container: InputContainer, stream: VideoStream) -> Iterator[av.Packet[VideoStream]]:
    """Packets up to the end or to where the file is cut off."""
    return _until_error(container.demux(stream))


def _until_error(items: Iterator[T]) -> Iterator[T]:
    try:
        yield from items
    except av.FFmpegError:
        return


def _check_size(video: VideoFile) -> None:
    sides = (video.width * video.pixel_aspect, video.height)
    if min(sides) < MIN_SIDE:
        raise UnusableError(f"too small: {video.width}×{video.height}")
    if max(sides) > MAX_ASPECT * min(sides):
        raise UnusableError(f"too long a side: {video.width}×{video.height}")


@contextmanager
def _open(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    # A file name with a % or a protocol in front must stay a file name.
    with av.open(f"file:{path}", options=OPEN_OPTIONS) as container:
        if not container.streams.video:
            raise UnusableError("no video stream")
        stream = container.streams.video[0]
        if stream.codec_context is None or not stream.width or not stream.height:
            raise UnusableError("no decodable video stream")
        stream.codec_context.thread_count = 1  # workers are the parallelism
        yield container, stream
