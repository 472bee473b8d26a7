"""Opening a video file so that it can do no harm, and what it gives: packets and frames, up to where it is cut off."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias, TypeVar

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from vqgan.errors import UnusableError

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
# Within one call FFmpeg cannot be interrupted otherwise: a file's tail that was never written is read to its end there.
CALL_SECONDS = 5
MOST_BOXES = 1000  # of a file's outermost ones; usual files have five
T = TypeVar("T")
Packet: TypeAlias = "av.Packet[VideoStream]"


def open_video(path: Path, content: bytes | None = None) -> tuple[InputContainer, VideoStream]:
    """A file and its first video stream; decoding takes one thread, since workers are the parallelism.

    Args:
        path: of the file.
        content: of the file, if it is in memory; then there need be none at `path`.

    Raises:
        UnusableError: it is no video.
    """
    # A file name with a % or a protocol in front must stay a file name; a title in another encoding harms nobody.
    try:
        container = av.open(
            f"file:{path}" if content is None else io.BytesIO(content),
            "r",
            options=OPEN_OPTIONS,
            metadata_errors="replace",
            timeout=(CALL_SECONDS, CALL_SECONDS),
        )
    except av.ArgumentError:
        raise UnusableError("not a video: a file of another kind") from None
    except av.ExitError:
        raise UnusableError(f"too slow: more than {CALL_SECONDS} seconds to open") from None
    try:
        stream = next(
            s for s in container.streams.video if not s.disposition & Disposition.attached_pic
        )  # no cover art
    except StopIteration:
        container.close()
        raise UnusableError("no video stream") from None
    if stream.codec_context is None or not stream.width or not stream.height:
        container.close()
        raise UnusableError("no decodable video stream")
    stream.codec_context.thread_count = 1
    return container, stream


def lacks_its_index(path: Path, content: bytes | None = None) -> bool:
    """Whether no index, the box `moov`, is found in a file of the MP4 and QuickTime kind.

    Recorders write it last; without it nothing can be decoded.
    """
    with path.open("rb") if content is None else io.BytesIO(content) as file:
        for number in range(MOST_BOXES):
            head = file.read(8)
            size, kind = int.from_bytes(head[:4]), head[4:]
            if kind == b"moov" or (number == 0 and kind != b"ftyp"):
                return False
            if size == 1:  # the size follows, in eight bytes
                size = int.from_bytes(file.read(8)) - 8
            if len(head) < 8 or size < 8:  # the end; 0: it reaches to there
                return True
            file.seek(size - 8, io.SEEK_CUR)
    return False


def packets_of(container: InputContainer, stream: VideoStream) -> Iterator[Packet]:
    """Packets up to the end or to where the file is cut off."""
    return until_error(_demux(container, stream))


def _demux(container: InputContainer, stream: VideoStream) -> Iterator[Packet]:
    try:
        yield from container.demux(stream)
    except IndexError:  # PyAV's, after the last packet, where a stream has appeared that was not there at the start
        return


def until_error(items: Iterator[T]) -> Iterator[T]:
    """Items up to the first error."""
    try:
        yield from items
    except av.ExitError:
        raise UnusableError(f"too slow: more than {CALL_SECONDS} seconds for one packet") from None
    except av.FFmpegError:
        return


def decoded(packets: Iterator[Packet]) -> Iterator[VideoFrame]:
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
