"""A corpus of damaged, odd and hostile 'videos', all made by code: what a large folder of found files may hold.

Each kind is a function that writes into a folder of its own and returns the file's path, with whether the project
should use the file: True, it must; False, it belongs into `bad_files.jsonl`; None, either is fine.
"""

from __future__ import annotations

import gzip
import io
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np
from PIL import Image

from tests.unit.video.test_video_file import UNEVEN, VP9, X265, Recording, numbered

Maker = Callable[[Path], Path]

COUNT = 24  # frames of a good video: numbered from 1, so that none is all dark
CLIP = 4  # frames of a clip
port = 9  # of the server that URLs in files point to, and that must never be asked; tests listen on one of their own


def make_corpus(folder: Path) -> dict[Path, tuple[str, bool | None]]:
    """Write a file of every kind, each into a folder of its own; returns for each its kind and whether to use it."""
    made = {}
    for number, (name, (make, usable)) in enumerate(KINDS.items()):
        own = folder / f"{number:03}"
        own.mkdir(parents=True)
        made[make(own)] = name, usable
    return made


# Good videos, whole


def frames(count: int = COUNT, width: int = 64, height: int = 48, first: int = 1) -> list[np.ndarray]:
    return [numbered(number, width, height) for number in range(first, first + count)]


def encoded(recording: Recording, pictures: Sequence[np.ndarray] | None = None) -> bytes:
    """The bytes of the file."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"video.{recording.suffix}"
        return recording.write(path, frames() if pictures is None else pictures).read_bytes()


@cache
def good(suffix: str = "mp4") -> bytes:
    """A good file; of mp4 the table of contents comes last."""
    if suffix == "webm":
        return encoded(Recording("libvpx-vp9", suffix, options=VP9))
    return encoded(Recording(suffix=suffix))


@cache
def fast_start() -> bytes:
    """A good mp4 whose table of contents comes first."""
    return encoded(Recording(container_options={"movflags": "faststart"}))


@cache
def in_fragments() -> bytes:
    """A good mp4 that was recorded live: the header knows of no frame."""
    return encoded(Recording(container_options={"movflags": "frag_keyframe+empty_moov"}))


def recorded(
    recording: Recording, count: int = COUNT, width: int = 64, height: int = 48, name: str | None = None
) -> Maker:
    """Numbered frames, written so."""
    return lambda folder: recording.write(folder / (name or f"video.{recording.suffix}"), frames(count, width, height))


def written(content: Callable[[], bytes], name: str = "video.mp4") -> Maker:
    """A file of just these bytes."""

    def make(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(content())
        return path

    return make


def text(content: str, name: str = "video.mp4") -> Maker:
    """A text in which {port} stands for the forbidden server's, and {folder} for the file's own folder."""

    def make(folder: Path) -> Path:
        path = folder / name
        path.write_text(content.replace("{port}", str(port)).replace("{folder}", str(folder)))
        (folder / "segment.bin").write_bytes(good("ts"))  # so that a playlist has something to lead to
        os.mkfifo(folder / "fifo")  # whoever opens it waits for ever
        return path

    return make


# Damage


def cut(content: bytes, share: float) -> bytes:
    return content[: round(len(content) * share)]


def patched(content: bytes, tag: bytes, offset: int, value: bytes) -> bytes:
    """Other bytes so far behind a box's four letters, wherever the box occurs."""
    changed, at = bytearray(content), content.find(tag)
    assert at >= 0, tag
    while at >= 0:
        changed[at + 4 + offset : at + 4 + offset + len(value)] = value
        at = content.find(tag, at + 4)
    return bytes(changed)


def u32(*values: int) -> bytes:
    return struct.pack(f">{len(values)}I", *values)


def payload(content: bytes) -> slice:
    """Where an mp4's frames are."""
    start = content.index(b"mdat") + 4
    return slice(start, start - 8 + int.from_bytes(content[start - 8 : start - 4], "big"))


def flipped(content: bytes, seed: int, bits: int, where: slice | None = None) -> bytes:
    """Some bits are the other way round."""
    rng, changed = np.random.default_rng(seed), bytearray(content)
    places = range(len(content))[where or slice(None)]
    for place in rng.choice(places, bits):
        changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def flipped_in_header(seed: int) -> bytes:
    return flipped(good(), seed, 12, slice(payload(good()).stop, None))


def flipped_in_payload(seed: int) -> bytes:
    return flipped(good(), seed, [1, 3, 10, 30, 100][seed % 5], payload(good()))


def with_payload(filling: Callable[[int], bytes]) -> bytes:
    """A good mp4 whose frames are something else."""
    where = payload(good())
    return good()[: where.start] + filling(where.stop - where.start) + good()[where.stop :]


def sparse(content: Callable[[], bytes], size: int, name: str) -> Maker:
    """A file of that size, of which only the start was ever written, as downloads leave it; it takes no room."""

    def make(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(content())
        os.truncate(path, size)
        return path

    return make


# Boxes of mp4


def box(name: bytes, content: bytes) -> bytes:
    return u32(8 + len(content)) + name + content


def with_box(content: bytes, path: Sequence[bytes], replacement: bytes) -> bytes:
    """Another box in the place of the one at `path`; its parents grow with it."""
    starts, at = [], 0
    for name in path:
        at = content.index(name, at) - 4
        starts.append(at)
    size = int.from_bytes(content[at : at + 4], "big")
    changed = bytearray(content)
    for start in starts[:-1]:
        old = int.from_bytes(content[start : start + 4], "big")
        changed[start : start + 4] = u32(old + len(replacement) - size)
    changed[at : at + size] = replacement
    return bytes(changed)


TABLES = (b"moov", b"trak", b"mdia", b"minf", b"stbl")


def of_one_byte_each(count: int) -> bytes:
    """An mp4 that claims so many frames of one byte, and needs no table to say so."""
    content = with_box(good(), [*TABLES, b"stsz"], box(b"stsz", u32(0, 1, count)))
    content = with_box(content, [*TABLES, b"stts"], box(b"stts", u32(0, 1, count, 512)))
    return with_box(content, [*TABLES, b"stsc"], box(b"stsc", u32(0, 1, 1, count, 1)))


def first_frame_again(count: int) -> bytes:
    """An mp4 of so many frames, all of which lie at the same place in the file."""
    content = good()
    sizes = content.index(b"stsz") + 4 + 12
    size = int.from_bytes(content[sizes : sizes + 4], "big")
    place = content.index(b"stco") + 4 + 8
    offset = content[place : place + 4]
    content = with_box(content, [*TABLES, b"stsz"], box(b"stsz", u32(0, size, count)))
    content = with_box(content, [*TABLES, b"stts"], box(b"stts", u32(0, 1, count, 512)))
    content = with_box(content, [*TABLES, b"stsc"], box(b"stsc", u32(0, 1, 1, 1, 1)))
    content = with_box(content, [*TABLES, b"stss"], box(b"free", b""))  # then each is a keyframe
    content = with_box(content, [*TABLES[:2], b"edts"], box(b"free", b""))  # this would end after the first ones
    return with_box(content, [*TABLES, b"stco"], box(b"stco", u32(0, count) + offset * count))


def in_another_file(reference: bytes) -> bytes:
    """An mp4 that says its frames are elsewhere."""
    return with_box(good(), [*TABLES[:-1], b"dinf", b"dref"], box(b"dref", u32(0, 1) + reference))


def alias(path: bytes) -> bytes:
    """A classic Mac OS alias record: how QuickTime names another file."""
    volume, name = b"\x01v".ljust(28, b"\0"), b"\x01f".ljust(64, b"\0")
    tags = struct.pack(">HH", 2, len(path)) + path + b"\0" * (len(path) % 2) + struct.pack(">HH", 0xFFFF, 0)
    levels = struct.pack(">HH", 1, 1)
    return box(b"alis", u32(0) + bytes(10) + volume + bytes(12) + name + bytes(16) + levels + bytes(16) + tags)


def compressed_header(megabytes: int) -> bytes:
    """An mp4 of some kilobytes whose header swells to zeros."""
    zeros = compressed(b"", bytes(10**6), megabytes)
    header = box(b"dcom", b"zlib") + box(b"cmvd", u32(megabytes * 10**6) + zeros)
    return box(b"ftyp", b"qt  " + u32(0)) + box(b"moov", box(b"cmov", header))


def nested(depth: int) -> bytes:
    """Boxes in boxes."""
    content = b""
    for _ in range(depth):
        content = box(b"moov", content)
    return box(b"ftyp", b"isom" + u32(0)) + content


def lasting(duration: int) -> bytes:
    """A good mp4 whose headers claim this duration."""
    content = good()
    for tag, offset in ((b"mvhd", 16), (b"mdhd", 16), (b"tkhd", 20)):
        content = patched(content, tag, offset, u32(duration))
    return content


def turned(matrix: Sequence[float]) -> bytes:
    """A good mp4 to be shown by another matrix (a, b, c, d)."""
    a, b, c, d = (round(value * 65536) for value in matrix)
    return patched(good(), b"tkhd", 40, struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30))


# Elements of Matroska, for what no library would write


def element(name: str, *content: bytes | int) -> bytes:
    """An EBML element by its id in hexadecimal; numbers are written in eight bytes."""
    body = b"".join(c if isinstance(c, bytes) else c.to_bytes(8, "big") for c in content)
    return bytes.fromhex(name) + (len(body) | 1 << 56).to_bytes(8, "big") + body


def matroska(
    pictures: Sequence[bytes],
    width: int,
    height: int,
    fourcc: bytes,
    times: Sequence[int] | None = None,
    tracks: int = 1,
) -> bytes:
    """A file of ready compressed pictures, one to a cluster, at times in milliseconds."""
    private = struct.pack("<IiiHH4sIiiII", 40, width, height, 1, 24, fourcc, 0, 0, 0, 0, 0)
    size = element("e0", element("b0", width), element("ba", height))
    codec = element("86", b"V_MS/VFW/FOURCC"), element("63a2", private)
    entries = [
        element("ae", element("d7", track), element("73c5", track), element("83", 1), *codec, size)
        for track in range(1, tracks + 1)
    ]
    clusters = [
        element("1f43b675", element("e7", time), element("a3", b"\x81\0\0\x80", picture))
        for time, picture in zip(times or range(0, 42 * len(pictures), 42), pictures)
    ]
    info = element("1549a966", element("2ad7b1", 1_000_000))
    segment = element("18538067", info, element("1654ae6b", *entries), *clusters)
    return element("1a45dfa3", element("4282", b"matroska")) + segment


def compressed(start: bytes, block: bytes, times: int) -> bytes:
    """What `zlib.compress(start + block * times)` could be, in next to no time and memory."""
    stream = zlib.compressobj(9)
    content = stream.compress(start) + stream.flush(zlib.Z_FULL_FLUSH)
    repeated = stream.compress(block) + stream.flush(zlib.Z_FULL_FLUSH)
    checksum = zlib.adler32(start)
    for _ in range(times):
        checksum = zlib.adler32(block, checksum)
    return content + repeated * times + b"\x03\0" + u32(checksum)


def chunk(name: bytes, content: bytes) -> bytes:
    return u32(len(content)) + name + content + u32(zlib.crc32(name + content))


def large_png(side: int, channels: int = 3) -> bytes:
    """A bright square of three (rgb) or four (rgba) bytes a pixel."""
    header = u32(side, side) + bytes([8, {3: 2, 4: 6}[channels], 0, 0, 0])
    as_above = (b"\2" + bytes(channels * side)) * 40
    first_rows = b"\0" + b"\xc8" * channels * side + as_above[: len(as_above) // 40 * 39]
    rows = compressed(first_rows, as_above, side // 40 - 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def picture(kind: str, width: int = 64, height: int = 48, number: int = 1) -> bytes:
    file = io.BytesIO()
    Image.fromarray(numbered(number, width, height)).save(file, kind)
    return file.getvalue()


def pngs(mode: str) -> list[bytes]:
    """Numbered pictures in one of Pillow's modes."""
    files = [io.BytesIO() for _ in range(COUNT)]
    for file, pixels in zip(files, frames()):
        Image.fromarray(pixels).convert(mode, dither=Image.Dither.NONE).save(file, "png")
    return [file.getvalue() for file in files]


def one_large_picture(side: int) -> bytes:
    """A large picture, followed by small ones."""
    return matroska([large_png(side, 4), *pngs("RGB")[1:CLIP]], side, side, b"MPNG")


def large_jpeg(side: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (side, side), 200).save(file, "jpeg")
    return file.getvalue()


def jpeg_of_lying_size(side: int) -> bytes:
    """A small picture whose header says it is large."""
    content = bytearray(picture("jpeg"))
    start = content.index(b"\xff\xc0") + 5
    content[start : start + 4] = struct.pack(">HH", side, side)
    return bytes(content)


def large_gif(side: int, count: int) -> bytes:
    """A large canvas on which each frame draws one pixel."""
    screen = b"GIF89a" + struct.pack("<HH", side, side) + b"\x80\0\0" + b"\xd7\xd7\xd7\0\0\0"
    control = b"\x21\xf9\x04\x04\x04\0\0\0"
    frame = b"\x2c" + struct.pack("<HHHH", 0, 0, 1, 1) + b"\0" + b"\x02\x02\x44\x01\0"
    return screen + (control + frame) * count + b"\x3b"


# What else a file may hold


def sound_only(folder: Path) -> Path:
    path = folder / "video.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100, layout="mono")
        container.mux([*stream.encode(silence()), *stream.encode()])
    return path


def silence() -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
    frame.sample_rate = 44100
    return frame


def cover_only(folder: Path) -> Path:
    path = folder / "video.mp4"
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=44100, layout="mono")
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame.from_ndarray(numbered(1), format="rgb24")))
        container.mux([*sound.encode(silence()), *sound.encode(), *cover.encode()])
    return path


def two_videos(folder: Path) -> Path:
    """The second one is smaller and does not move."""
    path = folder / "video.mp4"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("libx264", rate=24) for _ in range(2)]
        for stream, (width, height) in zip(streams, [(64, 48), (32, 32)]):
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for pixels in frames():
            container.mux(streams[0].encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(streams[1].encode(av.VideoFrame.from_ndarray(numbered(255, 32, 32), format="rgb24")))
        container.mux([*streams[0].encode(), *streams[1].encode()])
    return path


def with_other_streams(suffix: str) -> Maker:
    """Subtitles, or data, beside the video."""

    def make(folder: Path) -> Path:
        path = folder / f"video.{suffix}"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=24)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            other = container.add_data_stream() if suffix == "ts" else container.add_mux_stream("subrip")
            for number, pixels in enumerate(frames()):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
                said = av.Packet(b"line %d" % number)
                said.pts = said.dts = number * 42
                said.time_base, said.duration, said.stream = Fraction(1, 1000), 42, other
                container.mux(said)
            container.mux(stream.encode())
        return path

    return make


def sizes_in_turn(suffix: str) -> bytes:
    """The size changes after half of the frames."""
    parts = []
    for part, (width, height) in enumerate([(64, 48), (96, 80)]):
        times = [round(1000 * (number + 12 * part) / 24) for number in range(12)]
        recording = Recording(suffix=suffix, times=times, options={"x264-params": "repeat-headers=1"})
        parts.append(encoded(recording, frames(12, width, height, 1 + 12 * part)))
    return b"".join(parts)


def zip_file() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("video.mp4", good())
    return file.getvalue()


def named(name: str | bytes) -> Maker:
    """A good mp4 of this name."""
    return written(good, os.fsdecode(name))


def link(target: str) -> Maker:
    def make(folder: Path) -> Path:
        (folder / "target.bin").write_bytes(good())
        os.mkfifo(folder / "fifo")
        path = folder / "video.mp4"
        path.symlink_to(target.replace("{port}", str(port)))
        return path

    return make


def special(kind: int) -> Maker:
    """A FIFO or a socket."""

    def make(folder: Path) -> Path:
        path = folder / "video.mp4"
        os.mknod(path, kind | 0o600)
        return path

    return make


def directory(folder: Path) -> Path:
    path = folder / "video.mp4"
    path.mkdir()
    return path


def unreadable(folder: Path) -> Path:
    path = named("video.mp4")(folder)
    path.chmod(0)
    return path


AS_GIVEN = {"avoid_negative_ts": "disabled"}
TIMES = [round(number * 1000 / 24) for number in range(COUNT)]


def with_gap(milliseconds: int) -> list[int]:
    return TIMES[: COUNT // 2] + [time + milliseconds for time in TIMES[COUNT // 2 :]]


def pictures_at(times: Sequence[int]) -> bytes:
    """Frames that need no other to be decoded, at times as no encoder would give them."""
    jpegs = [picture("jpeg", number=number) for number in range(1, 1 + len(times))]
    return matroska(jpegs, 64, 48, b"MJPG", times)


def every_time(delta: int) -> bytes:
    """A good mp4 with the same time from each frame to the next."""
    return patched(good(), b"stts", 12, u32(delta))


URL = "http://127.0.0.1:{port}/video.mp4"
HLS = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{target}\n#EXT-X-ENDLIST\n"
DASH = (
    '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" profiles="x"><Period>'
    '<BaseURL>{target}</BaseURL><AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1">'
    '<SegmentList duration="1"><SegmentURL media="video.mp4"/></SegmentList></Representation></AdaptationSet>'
    "</Period></MPD>"
)
CONCAT = "ffconcat version 1.0\nfile '{target}'\n"
SDP = (
    "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\na=rtpmap:96 H264/90000\n"
)
HTML = f'<!DOCTYPE html><html><body>404 <video src="{URL}"></video></body></html>\n'
PDF = "%PDF-1.4\n1 0 obj\n<< /Type /Catalog >>\nendobj\ntrailer\n<< /Root 1 0 R >>\n%%EOF\n"

KINDS: dict[str, tuple[Maker, bool | None]] = {
    # No video at all
    "empty": (written(lambda: b""), False),
    "one byte": (written(lambda: b"\0"), False),
    "text": (text("not a video\n" * 50), False),
    "random bytes": (written(lambda: np.random.default_rng(0).bytes(50_000)), False),
    "random bytes named ts": (written(lambda: np.random.default_rng(1).bytes(50_000), "video.ts"), False),
    "random bytes named mpg": (written(lambda: np.random.default_rng(2).bytes(50_000), "video.mpg"), False),
    "zeros": (written(lambda: bytes(50_000)), False),
    "ones": (written(lambda: b"\xff" * 50_000, "video.mpg"), False),
    "a gigabyte that was never written": (sparse(bytes, 2**30, "video.mp4"), False),
    "JPEG": (written(lambda: picture("jpeg")), False),
    "JPEG's first bytes, then noise": (
        written(lambda: picture("jpeg")[:64] + np.random.default_rng(0).bytes(5_000)),
        False,
    ),
    "PNG": (written(lambda: picture("png")), False),
    "BMP": (written(lambda: picture("bmp")), False),
    "WebP": (written(lambda: picture("webp")), False),
    "AVIF": (written(lambda: picture("avif")), False),
    "zip": (written(zip_file), False),
    "gzip of a good video": (written(lambda: gzip.compress(good())), False),
    "HTML": (text(HTML), False),
    "PDF": (text(PDF), False),
    "a URL": (text(URL + "\n"), False),
    # Damaged
    "mp4, start only": (written(lambda: good()[:32]), False),
    "mp4, contents last, cut at 5 %": (written(lambda: cut(good(), 0.05)), False),
    "mp4, contents last, cut at 50 %": (written(lambda: cut(good(), 0.5)), False),
    "mp4, contents last, cut at 95 %": (written(lambda: cut(good(), 0.95)), False),
    "mp4, contents first, cut at 5 %": (written(lambda: cut(fast_start(), 0.05)), False),
    "mp4, contents first, cut at 50 %": (written(lambda: cut(fast_start(), 0.5)), False),
    "mp4, contents first, cut at 95 %": (written(lambda: cut(fast_start(), 0.95)), True),
    "mp4 in fragments, cut at 70 %": (
        written(lambda: cut(in_fragments(), 0.7)),
        True,
    ),
    **{
        f"mp4, bits flipped in the {part}, {seed}": (written(lambda flip=flip, seed=seed: flip(seed)), None)
        for part, flip in (("header", flipped_in_header), ("frames", flipped_in_payload))
        for seed in range(5)
    },
    "mp4, frames zeroed": (written(lambda: with_payload(bytes)), False),
    "mp4, frames of noise": (written(lambda: with_payload(np.random.default_rng(0).bytes)), False),
    "mp4, second half of the frames zeroed": (
        written(lambda: with_payload(lambda n: good()[payload(good())][: n // 2] + bytes(n - n // 2))),
        None,
    ),
    "mkv, start only": (written(lambda: good("mkv")[:60], "video.mkv"), False),
    "mkv, cut": (written(lambda: cut(good("mkv"), 0.7), "video.mkv"), True),
    "ts, cut": (written(lambda: cut(good("ts"), 0.7), "video.ts"), True),
    "webm, cut": (written(lambda: cut(good("webm"), 0.7), "video.webm"), True),
    "avi, cut": (written(lambda: cut(good("avi"), 0.7), "video.avi"), None),
    "flv, cut": (written(lambda: cut(good("flv"), 0.7), "video.flv"), True),
    "starts between keyframes": (
        written(lambda: good("ts")[len(good("ts")) // 3 // 188 * 188 :], "video.ts"),
        True,
    ),
    "starts within a packet": (written(lambda: good("ts")[100:], "video.ts"), True),
    "mkv, then 16 MB that were never written": (sparse(lambda: good("mkv"), 2**24, "video.mkv"), None),
    "mp4, then 4 GB that were never written": (sparse(good, 2**32, "video.mp4"), True),
    "mp4, then noise": (written(lambda: good() + np.random.default_rng(0).bytes(20_000)), True),
    # Under another name
    "mkv named mp4": (written(lambda: good("mkv")), True),
    "mp4 named avi": (written(good, "video.avi"), True),
    "ts named mov": (written(lambda: good("ts"), "video.mov"), True),
    "webm named gif": (written(lambda: good("webm"), "video.gif"), True),
    "suffix in capitals": (named("VIDEO.MP4"), True),
    # Too little of it
    "sound only": (sound_only, False),
    "cover art only": (cover_only, False),
    "no frames": (
        written(lambda: in_fragments()[: in_fragments().index(b"moof") - 4]),
        False,
    ),
    "a header without frames": (written(lambda: matroska([], 64, 48, b"MJPG"), "video.mkv"), False),
    "one frame": (recorded(Recording(), 1), False),
    "one frame less than a clip": (recorded(Recording(), CLIP - 1), False),
    "as many frames as a clip": (recorded(Recording(), CLIP), True),
    "2×2": (recorded(Recording(pix_fmt="yuv444p"), width=2, height=2), False),
    "2000×2": (recorded(Recording(pix_fmt="yuv444p"), width=2000, height=2), False),
    "4×600": (recorded(Recording(pix_fmt="yuv444p"), width=4, height=600), False),
    # Unusual pixels
    "10 bits": (recorded(Recording(pix_fmt="yuv420p10le")), True),
    "12 bits": (recorded(Recording("libx265", pix_fmt="yuv420p12le", options=X265)), True),
    "grey": (recorded(Recording(pix_fmt="gray")), True),
    "grey, 16 bits": (recorded(Recording("ffv1", "mkv", "gray16le")), True),
    "grey with alpha": (recorded(Recording("ffv1", "mkv", "ya8")), True),
    "black and white": (written(lambda: matroska(pngs("1"), 64, 48, b"MPNG"), "video.mkv"), True),
    "a palette": (written(lambda: matroska(pngs("P"), 64, 48, b"MPNG"), "video.mkv"), True),
    "vp9 with alpha": (recorded(Recording("libvpx-vp9", "webm", "yuva420p", options=VP9)), True),
    "ffv1 with alpha": (recorded(Recording("ffv1", "mkv", "bgra")), True),
    "gif": (recorded(Recording("gif", "gif", "rgb8", rate=Fraction(25))), True),
    "4:4:4": (recorded(Recording(pix_fmt="yuv444p")), True),
    "odd sides": (recorded(Recording(pix_fmt="yuv444p"), width=65, height=49), True),
    "rotated": (written(lambda: turned((0, 1, -1, 0))), True),
    "turned by 45 degrees": (written(lambda: turned((0.7071, 0.7071, -0.7071, 0.7071))), True),
    "a display matrix of zeros": (written(lambda: turned((0, 0, 0, 0))), True),
    "anamorphic": (recorded(Recording(pixel_aspect=Fraction(2))), True),
    "pixels twenty times as wide as high": (recorded(Recording(pixel_aspect=Fraction(20))), False),
    "interlaced": (recorded(Recording(options={"x264-params": "tff=1"})), True),
    "the size changes": (written(lambda: sizes_in_turn("ts"), "video.ts"), True),
    "h264 without a container": (recorded(Recording(suffix="h264")), True),
    # Other streams
    "two videos": (two_videos, True),
    "subtitles": (with_other_streams("mkv"), True),
    "a stream of data": (with_other_streams("ts"), True),
    "2000 tracks": (written(lambda: matroska([picture("jpeg")] * 8, 64, 48, b"MJPG", tracks=2000), "video.mkv"), None),
    # Large when unpacked
    "PNG of 16000×16000 in mkv": (
        written(lambda: matroska([large_png(16000)] * CLIP, 16000, 16000, b"MPNG"), "video.mkv"),
        False,
    ),
    "PNG of 16000×16000 in mkv that says 64×48": (
        written(lambda: matroska([large_png(16000)] * CLIP, 64, 48, b"MPNG"), "video.mkv"),
        False,
    ),
    "PNG of 6000×6000 with alpha in mkv": (written(lambda: one_large_picture(6000), "video.mkv"), None),
    "JPEG of 9000×9000 in mkv": (
        written(lambda: matroska([large_jpeg(9000)] * CLIP, 9000, 9000, b"MJPG"), "video.mkv"),
        False,
    ),
    "JPEG that claims 8000×8000 in mkv": (
        written(lambda: matroska([jpeg_of_lying_size(8000)] * CLIP, 64, 48, b"MJPG"), "video.mkv"),
        None,
    ),
    "gif of 8000×8000": (written(lambda: large_gif(8000, CLIP), "video.gif"), None),
    "gif of 30000×30000": (written(lambda: large_gif(30000, CLIP), "video.gif"), False),
    "header that swells to 400 MB": (written(lambda: compressed_header(400)), False),
    "header that swells to 1.9 GB": (written(lambda: compressed_header(1900)), False),
    "boxes in boxes": (written(lambda: nested(2000)), False),
    # Lies
    "claims 32767×32767": (written(lambda: patched(good(), b"avc1", 24, struct.pack(">HH", 32767, 32767))), True),
    "claims 0×0": (written(lambda: patched(good(), b"avc1", 24, struct.pack(">HH", 0, 0))), None),
    "claims 2³¹ frames by size": (written(lambda: patched(good(), b"stsz", 8, u32(2**31))), None),
    "claims 60 million frames by size": (written(lambda: patched(good(), b"stsz", 8, u32(6 * 10**7))), None),
    "claims 2³¹ frames by time": (written(lambda: patched(good(), b"stts", 8, u32(2**31))), None),
    "claims 10 million frames of one byte": (written(lambda: of_one_byte_each(10**7)), None),
    "claims 100 million frames of one byte": (written(lambda: of_one_byte_each(10**8)), None),
    "400 frames at one place": (written(lambda: first_frame_again(400)), True),
    "claims 68 years and more": (written(lambda: lasting(2**31)), True),
    "claims no time at all": (written(lambda: lasting(0)), True),
    "timescale 0": (written(lambda: patched(good(), b"mdhd", 12, u32(0))), None),
    "timescale 2³¹ − 1": (written(lambda: patched(good(), b"mdhd", 12, u32(2**31 - 1))), None),
    # Leading elsewhere
    "HLS playlist": (text(HLS.replace("{target}", "{folder}/segment.bin")), False),
    "HLS playlist of a FIFO": (text(HLS.replace("{target}", "fifo"), "video.ts"), False),
    "HLS playlist of a server": (text(HLS.replace("{target}", URL)), False),
    "DASH manifest of a server": (text(DASH.replace("{target}", URL)), False),
    "concat script": (text(CONCAT.replace("{target}", "segment.bin")), False),
    "concat script of a server": (text(CONCAT.replace("{target}", URL)), False),
    "SDP": (text(SDP), False),
    "frames on a server": (
        written(lambda: in_another_file(box(b"url ", u32(0) + URL.replace("{port}", str(port)).encode()))),
        None,
    ),
    "frames on a server, by alias": (
        written(lambda: in_another_file(alias(URL.replace("{port}", str(port)).encode())), "video.mov"),
        None,
    ),
    "link to a URL": (link(URL), False),
    # No regular files
    "dangling link": (link("nowhere.mp4"), False),
    "link to itself": (link("video.mp4"), False),
    "link to a FIFO": (link("fifo"), False),
    "link to an endless device": (link("/dev/zero"), False),
    "link to a file of the system": (link("/proc/self/environ"), False),
    "link to a good video": (link("target.bin"), True),
    "FIFO": (special(stat.S_IFIFO), False),
    "socket": (special(stat.S_IFSOCK), False),
    "directory": (directory, False),
    "unreadable": (unreadable, None),  # root reads it all the same
    # Names
    **{
        f"name {name!r}": (named(name), True)
        for name in (
            "ünïcødé 影片.mp4", "🎬🎞️.mp4", "it's \"quoted\".mp4", "%d %05d %s.mp4", "new\nline.mp4", "\u2028.mp4",
            b"not-utf8-\xe9\xff.mp4", "-i.mp4", "http:x.mp4", "concat:a|b.mp4", "back\\slash.mp4", " .mp4",
        )
    },
    "name of 255 bytes": (named("n" * 251 + ".mp4"), True),
    # Times
    "uneven times": (recorded(Recording(times=UNEVEN[:COUNT])), True),
    "times that start anew": (written(lambda: good("ts") * 2, "video.ts"), None),
    "times that fall": (written(lambda: pictures_at(TIMES[::-1]), "video.mkv"), None),
    "times in any order": (written(lambda: pictures_at(TIMES[1::2] + TIMES[::2]), "video.mkv"), None),
    "all frames at one time": (written(lambda: every_time(0)), True),
    "one frame in 19 days": (written(lambda: every_time(2**31 - 1)), None),
    "a gap of a day": (recorded(Recording(times=with_gap(86_400_000))), True),
    "a gap of a month in mkv": (recorded(Recording(suffix="mkv", times=with_gap(30 * 86_400_000))), True),
    "a gap of 10⁴ years": (written(lambda: pictures_at(with_gap(10**4 * 365 * 86_400_000)), "video.mkv"), None),
    "times at the end of 64 bits": (written(lambda: pictures_at(with_gap(2**63 - 10**6)), "video.mkv"), None),
    "negative times in ts": (
        recorded(Recording(suffix="ts", container_options={"output_ts_offset": "95443"})),
        True,
    ),  # the clock of 33 bits is about to start anew
    "negative times in mp4": (
        recorded(Recording(b_frames=2, container_options={"movflags": "negative_cts_offsets"})),
        True,
    ),
    "times that wrap in flv": (
        recorded(Recording(suffix="flv", container_options={"output_ts_offset": "-1", **AS_GIVEN})),
        True,
    ),
}  # fmt: skip

# What a demuxer reads to its end in one call: minutes, unless it is stopped. The start of each is good.
ENDLESS: dict[str, Maker] = {
    f"{suffix}, then 64 GB that were never written": sparse(lambda s=suffix: good(s), 2**36, f"video.{suffix}")
    for suffix in ("mkv", "flv", "avi", "h264")
}
