"""One video file: where its frames are, reading some of them exactly, and writing one."""

from __future__ import annotations

import gc
import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, TypeVar, cast

import av
import numpy as np
from av.buffer import Buffer
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from jaxtyping import Float, Int, UInt8

from vqgan.data.bad_files import UnusableError, check_size

# The demuxers of video files. Playlists and session descriptions are not among them: those open other files.
CONTAINERS = (
    "asf avi dv flv gif h264 hevc ivf m4v matroska mov mpeg mpegts mpegvideo mxf nut obu ogg rm webm yuv4mpegpipe"
)
# No file may reach beyond itself, and none may ask for memory before its size is known.
OPEN_OPTIONS = {
    "format_whitelist": CONTAINERS.replace(" ", ","),
    "protocol_whitelist": "file",
    "max_pixels": str(2**26),
}
# Containers whose packets carry decoding, not presentation times: where a codec reorders, frames are counted.
TIMELESS = {"avi"}
# How many keyframes before a frame decoding starts, one after the other until the frame is found. A container may seek
# too far where keyframes are closer than the decoder's delay.
KEYFRAMES_BACK = (1, 4)

# Within one call FFmpeg cannot be interrupted otherwise: a file's tail that was never written is read to its end there.
CALL_SECONDS = 5

T = TypeVar("T")
Packet: TypeAlias = "av.Packet[VideoStream]"


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

    @property
    def seconds(self) -> Float[np.ndarray, "frames"]:
        """Time of each frame, the first at 0."""
        return (self.pts - self.pts[0]) * self.time_base

    def scaled_size(self, resolution: int) -> tuple[int, int]:
        """Stored (width, height) scaled so that the shorter displayed side is `resolution`."""
        width = self.width * self.pixel_aspect
        scale = resolution / min(width, self.height)
        return max(resolution, round(width * scale)), max(resolution, round(self.height * scale))


@dataclass(frozen=True)
class _PacketIndex:
    """What the packets of a file say without being decoded."""

    times: list[int | None]
    keyframes: list[int]
    missing: int  # packets that the header declares and the file lacks
    timeless: bool
    time_base: float
    frame_rate: float


def scan_video(path: Path) -> tuple[VideoFile, str | None]:
    """Index a file by demuxing it and decoding its first frame.

    Returns:
        The index, and a complaint if the file is damaged but usable in part.

    Raises:
        UnusableError: it holds no video that can be decoded.
    """
    try:
        index = _index_packets(path)
        with _open(path) as (container, stream):
            frames = _decoded(_packets(container, stream))
            first = next(frames, None)
            if first is None:
                raise UnusableError("no frames")
            # What is shown before the first frame that decodes belongs to a keyframe that was cut off.
            times = [time for time in index.times if time is not None and first.pts is not None and time >= first.pts]
            if index.timeless or first.pts not in times or None in index.times or len(set(times)) < len(times):
                pts = np.arange(1 + sum(1 for _ in _until_error(frames)))
                keyframes, time_base = np.empty(0, np.int64), 1 / index.frame_rate
            else:
                pts = np.array(sorted(times), np.int64)
                keyframes, time_base = np.array(sorted(index.keyframes), np.int64), index.time_base
            aspect = float(stream.sample_aspect_ratio or 1)
            video = VideoFile(path, pts, keyframes, time_base, first.width, first.height, aspect, *_orientation(first))
            del first, frames
            gc.collect(1)  # a frame whose side data were looked at is in a cycle of references, and may be large
    except av.FFmpegError as error:
        raise UnusableError(f"unreadable: {error.strerror or error}") from None
    check_size(video.width * video.pixel_aspect, video.height)
    declared = len(index.times) + index.missing
    return video, f"truncated: {index.missing} of {declared} frames are missing" if index.missing > 0 else None


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
    found: dict[int, UInt8[np.ndarray, "h w 3"]] = {}
    try:
        for start in (*starts, None):
            found = _decode(video, set(wanted), resolution, start)
            if len(found) == len(set(wanted)):
                break
    except av.FFmpegError as error:
        raise UnusableError(f"decoding failed: {error.strerror or error}") from None
    lost = set(wanted) - set(found)
    if lost:
        raise UnusableError(f"damaged: {len(lost)} frames cannot be decoded")
    frames = np.rot90(np.stack([found[pts] for pts in wanted]), video.rotation // 90, axes=(1, 2))
    return np.ascontiguousarray(frames[:, :, ::-1] if video.mirrored else frames)


def write_video(path: Path, frames: UInt8[np.ndarray, "time h w 3"], fps: int) -> None:
    """Write frames as h264 in mp4, which every browser plays; sides must be even.

    Raises:
        OSError: the file cannot be written.
    """
    with av.open(str(path), "w", format="mp4") as container:
        # x264's macroblock tree reads memory that nobody wrote: with it the same frames give other bytes each time.
        options = {"crf": "12", "threads": "1", "x264-params": "mbtree=0"}
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def _index_packets(path: Path) -> _PacketIndex:
    with _open(path) as (container, stream):
        declared = stream.frames
        time_base, frame_rate = float(stream.time_base or 0), float(stream.average_rate or 25)
        counted = stream.codec_context.codec.reorder and not TIMELESS.isdisjoint(container.format.name.split(","))
        packets = [
            (packet.pts, packet.is_keyframe, packet.is_discard or _invisible(packet, stream))
            for packet in _packets(container, stream)
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


def _invisible(packet: av.Packet[VideoStream], stream: VideoStream) -> bool:
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


def _decode(
    video: VideoFile, wanted: set[int], resolution: int, start: int | None
) -> dict[int, UInt8[np.ndarray, "h w 3"]]:
    """The frames that can be decoded from the keyframe at time `start` on, or from the file's beginning."""
    first, last = min(wanted), max(wanted)
    width, height = video.scaled_size(resolution)
    scaler = VideoReformatter()
    found: dict[int, UInt8[np.ndarray, "h w 3"]] = {}
    with _open(video.path) as (container, stream):
        packets = _packets(container, stream)
        if start is not None:
            container.seek(start, stream=stream, backward=True)
            packets = _from_keyframe(packets, first)
        if len(video.keyframes):
            packets = _hurried(packets, stream, first)
        for count, frame in enumerate(_decoded(packets)):
            pts = frame.pts if len(video.keyframes) else count
            if pts is not None and pts in wanted and not frame.is_corrupt:
                found[pts] = _to_rgb(scaler, frame, width, height)
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


def _decoded(packets: Iterator[Packet]) -> Iterator[VideoFrame]:
    """Decode packets; errors before the first frame are of a recording that starts between keyframes."""
    started = False
    for packet in packets:
        try:
            frames = packet.decode()
        except av.FFmpegError:
            if started:
                raise
            continue
        started = started or bool(frames)
        yield from frames


def _to_rgb(scaler: VideoReformatter, frame: VideoFrame, width: int, height: int) -> UInt8[np.ndarray, "h w 3"]:
    # The source's matrix and range are the frame's own.
    rgb = scaler.reformat(
        frame, width, height, "rgb24", interpolation="BILINEAR", dst_color_range="JPEG", threads=1
    )  # fmt: skip
    return rgb.to_ndarray()


def _packets(container: InputContainer, stream: VideoStream) -> Iterator[Packet]:
    """Packets up to the end or to where the file is cut off."""
    return _until_error(container.demux(stream))


def _until_error(items: Iterator[T]) -> Iterator[T]:
    try:
        yield from items
    except av.ExitError:
        raise UnusableError(f"too slow: more than {CALL_SECONDS} seconds for one packet") from None
    except av.FFmpegError:
        return


@contextmanager
def _open(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    # A file name with a % or a protocol in front must stay a file name; a title in another encoding harms nobody.
    try:
        container = av.open(
            f"file:{path}",
            options=OPEN_OPTIONS,
            metadata_errors="replace",
            timeout=(CALL_SECONDS, CALL_SECONDS),
        )
    except av.ArgumentError:
        raise UnusableError("not a video: a file of another kind") from None
    except av.ExitError:
        raise UnusableError(f"too slow: more than {CALL_SECONDS} seconds to open") from None
    with container:
        streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]  # no cover art
        if not streams:
            raise UnusableError("no video stream")
        stream = streams[0]
        if stream.codec_context is None or not stream.width or not stream.height:
            raise UnusableError("no decodable video stream")
        stream.codec_context.thread_count = 1  # workers are the parallelism
        yield container, stream
