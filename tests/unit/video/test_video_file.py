"""One video file: every frame is the right one, in its true colours and upright, whatever the codec and container."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from av.video.reformatter import VideoReformatter

from tests.support.scheduling import kept_usual
from vqgan.errors import UnusableError
from vqgan.video import container as video_container
from vqgan.video import reader as video_reader
from vqgan.video.file import VideoFile, scan_video
from vqgan.video.reader import EXACT_BILINEAR, FrameStream, read_frames
from vqgan.video.writer import write_video

WIDTH, HEIGHT, BITS = 64, 48, 8
DARK, BRIGHT = 40, 215
REAL_NAMES = (
    "a_640x360.mp4", "b_640x360.mp4", "c_596x336.mp4", "d_340x256.mp4", "e_mpeg4_320x240.avi", "f_1920x1080.avi",
    "g_hevc_10bit_200x200.mp4", "h_av1_640x360.mkv", "talk_320x180.mp4",
)  # fmt: skip


def numbered(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """A frame that shows its number in binary: four blocks above, four below, bright for 1, the highest bit first."""
    bits = [(number >> (BITS - 1 - bit)) & 1 for bit in range(BITS)]
    blocks = np.where(np.array(bits).reshape(2, 4) == 1, BRIGHT, DARK).astype(np.uint8)
    rows, columns = np.arange(height) * 2 // height, np.arange(width) * 4 // width
    return np.repeat(blocks[rows][:, columns, None], 3, axis=2)


def number_shown(frame: np.ndarray) -> int:
    """The number that `numbered` drew, read off the centres of the blocks."""
    height, width = frame.shape[:2]
    rows, columns = height * np.array([1, 3]) // 4, width * np.array([1, 3, 5, 7]) // 8
    bits = (frame[rows][:, columns].mean(axis=2) > 127).astype(int).ravel().tolist()
    return int("".join(map(str, bits)), 2)


@dataclass(frozen=True)
class Recording:
    """How a test video is written."""

    codec: str = "libx264"
    suffix: str = "mp4"
    pix_fmt: str = "yuv420p"
    gop: int = 12
    b_frames: int = 0
    options: dict[str, str] = field(default_factory=dict)
    container_options: dict[str, str] = field(default_factory=dict)
    rate: Fraction = Fraction(24)
    times: Sequence[int] | None = None  # in milliseconds
    pixel_aspect: Fraction | None = None

    def write(self, path: Path, frames: Sequence[np.ndarray]) -> Path:
        """Write rgb frames to `path`."""
        with kept_usual(), av.open(str(path), "w", options=self.container_options) as container:
            stream = container.add_stream(self.codec, rate=self.rate, options={"threads": "1", **self.options})
            stream.height, stream.width = frames[0].shape[:2]
            stream.pix_fmt = self.pix_fmt
            context = stream.codec_context
            context.gop_size, context.max_b_frames = self.gop, self.b_frames
            if self.pixel_aspect is not None:
                context.sample_aspect_ratio = self.pixel_aspect
            time_base = 1 / self.rate if self.times is None else Fraction(1, 1000)
            context.time_base = time_base
            for time, pixels in zip(self.times or itertools.count(), frames):
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.pts, frame.time_base = time, time_base
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return path

    def write_numbers(self, folder: Path, count: int, width: int = WIDTH, height: int = HEIGHT) -> Path:
        """Write `count` numbered frames to a file in `folder`."""
        return self.write(folder / f"video.{self.suffix}", [numbered(n, width, height) for n in range(count)])


# 40 uneven times; 83 and 84 follow at once, and there is a gap of a second.
UNEVEN = np.cumsum([0, *itertools.islice(itertools.cycle([41, 42, 10, 1, 90, 33, 1000, 17]), 39)]).tolist()
X265 = {"x265-params": "log-level=none:pools=none:frame-threads=1"}
VP9 = {"deadline": "realtime", "cpu-used": "8", "crf": "30", "b": "0"}
RECORDINGS = {
    "h264": Recording(),
    "h264 with B-frames": Recording(b_frames=3, options={"x264-params": "b-pyramid=normal:b-adapt=0"}),
    "h264, one long group of pictures": Recording(gop=1000, b_frames=2),
    "h264, open groups of pictures": Recording(b_frames=3, options={"x264-params": "open-gop=1:b-adapt=0"}),
    "h264, keyframes closer than the delay": Recording(
        gop=3, b_frames=2, options={"x264-params": "open-gop=1:b-adapt=0:scenecut=0"}
    ),
    "h264 with intra refresh": Recording(suffix="ts", options={"x264-params": "intra-refresh=1"}),
    "h264 in mkv": Recording(suffix="mkv", b_frames=3),
    "h264 in mov": Recording(suffix="mov", b_frames=3),
    "h264 in ts": Recording(suffix="ts", b_frames=3),
    "h264 in ts, open groups of pictures": Recording(
        suffix="ts", b_frames=3, options={"x264-params": "open-gop=1:b-adapt=0"}
    ),
    "h264 in flv": Recording(suffix="flv", b_frames=3),
    "h264 in avi": Recording(suffix="avi", b_frames=3),
    "h264 without a container": Recording(suffix="h264", b_frames=3),
    "h264 fragmented": Recording(b_frames=3, container_options={"movflags": "frag_keyframe+empty_moov"}),
    "h264, 10 bits": Recording(pix_fmt="yuv420p10le", b_frames=3),
    "h264, uneven times": Recording(b_frames=3, times=UNEVEN),
    "h264 in mkv, uneven times": Recording(suffix="mkv", b_frames=3, times=UNEVEN),
    "h264 at 30000/1001": Recording(b_frames=3, rate=Fraction(30000, 1001)),
    "hevc with B-frames": Recording("libx265", b_frames=4, options=X265),
    "hevc, open groups of pictures": Recording(
        "libx265", b_frames=4, options={"x265-params": X265["x265-params"] + ":open-gop=1:b-adapt=0"}
    ),
    "hevc in ts, open groups of pictures": Recording(
        "libx265", "ts", b_frames=4, options={"x265-params": X265["x265-params"] + ":open-gop=1:b-adapt=0"}
    ),
    "hevc, 10 bits": Recording("libx265", pix_fmt="yuv420p10le", b_frames=4, options=X265),
    "vp8": Recording("libvpx", "webm", options={**VP9, "auto-alt-ref": "0"}),
    "vp9": Recording("libvpx-vp9", "webm", options=VP9),
    "vp9 with alternate references": Recording(
        "libvpx-vp9", "webm", options={"deadline": "good", "cpu-used": "5", "auto-alt-ref": "1", "lag-in-frames": "16"}
    ),
    "vp9 in mp4": Recording("libvpx-vp9", "mp4", options=VP9),
    "av1": Recording("libsvtav1", "mkv", options={"preset": "8", "crf": "20"}),
    "av1 in mp4": Recording("libsvtav1", "mp4", options={"preset": "8", "crf": "20"}),
    "mpeg4 in avi": Recording("mpeg4", "avi", options={"q": "3"}),
    "mpeg4 with B-frames in avi": Recording("mpeg4", "avi", b_frames=2),
    "mpeg4 with B-frames in mp4": Recording("mpeg4", "mp4", b_frames=2),
    "mpeg2 with B-frames": Recording("mpeg2video", "mpg", b_frames=2),
    "mpeg2 with B-frames in ts": Recording("mpeg2video", "ts", b_frames=2),
    "mjpeg in avi": Recording("mjpeg", "avi", "yuvj420p"),
    "mjpeg in mov": Recording("mjpeg", "mov", "yuvj420p"),
    "ffv1": Recording("ffv1", "mkv"),
    "prores": Recording("prores_ks", "mov", "yuv422p10le"),
    "gif": Recording("gif", "gif", "rgb8", rate=Fraction(25)),
}  # fmt: skip


def decode_all(path: Path, width: int, height: int) -> np.ndarray:
    """All frames of a file in one pass from the start, scaled."""
    scaler = VideoReformatter()
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        scaled = [
            scaler.reformat(f, width, height, "gbrp", interpolation=EXACT_BILINEAR, dst_color_range="JPEG", threads=1)
            for f in container.decode(video=0)
        ]
    return np.stack([frame.to_ndarray() for frame in scaled])


def some_positions(count: int) -> list[np.ndarray]:
    """Single frames, neighbours, sparse and repeated ones."""
    rng = np.random.default_rng(0)
    singles = [np.array([n]) for n in {0, 1, count // 2, count - 2, count - 1, *rng.integers(count, size=12).tolist()}]
    several = [np.sort(rng.integers(count, size=4)) for _ in range(6)]
    runs = [np.arange(start, start + 4) for start in rng.integers(count - 4, size=6)]
    return [*singles, *several, *runs, np.array([count // 2] * 3)]


@pytest.mark.parametrize("recording", RECORDINGS.values(), ids=RECORDINGS.keys())
def test_frames_are_those_of_a_full_decode(recording: Recording, tmp_path: Path) -> None:
    count = 40
    path = recording.write_numbers(tmp_path, count)
    video, complaint = scan_video(path)
    expected = decode_all(path, WIDTH, HEIGHT)
    assert complaint is None
    assert len(video.pts) == count
    assert [number_shown(frame) for frame in expected] == list(range(count))
    for positions in some_positions(count):
        frames = read_frames(video, positions, HEIGHT)
        assert [number_shown(frame) for frame in frames] == positions.tolist()
        np.testing.assert_array_equal(frames, expected[positions], err_msg=str(positions))


@pytest.mark.parametrize("name", REAL_NAMES)
def test_frames_of_real_videos_are_those_of_a_full_decode(name: str, real_videos: Path) -> None:
    video, complaint = scan_video(real_videos / name)
    expected = decode_all(real_videos / name, *video.scaled_size(32))
    assert complaint is None
    assert len(video.pts) == len(expected)
    rng = np.random.default_rng(0)
    last = len(expected) - 1
    for start in [0, last - 3, last - 1, *rng.integers(last - 3, size=5)]:
        positions = np.minimum(start + np.arange(4), last)
        np.testing.assert_array_equal(read_frames(video, positions, 32), expected[positions])


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "webm"])
def test_times_are_those_of_the_frames(suffix: str, tmp_path: Path) -> None:
    codec = "libvpx-vp9" if suffix == "webm" else "libx264"
    recording = Recording(codec, suffix, times=UNEVEN, b_frames=0 if suffix == "webm" else 3)
    video, _ = scan_video(recording.write_numbers(tmp_path, len(UNEVEN)))
    np.testing.assert_allclose(video.seconds * 1000, UNEVEN, atol=0.01)


def test_a_recording_that_starts_between_keyframes_loses_only_what_cannot_be_decoded(tmp_path: Path) -> None:
    recording = Recording(suffix="ts", gop=10, b_frames=2)
    whole = recording.write_numbers(tmp_path, 40).read_bytes()
    cut = tmp_path / "cut.ts"
    cut.write_bytes(whole[len(whole) // 2 // 188 * 188 :])
    video, _ = scan_video(cut)
    shown = [number_shown(read_frames(video, np.array([n]), HEIGHT)[0]) for n in range(len(video.pts))]
    assert shown == list(range(40 - len(shown), 40))
    assert len(shown) >= 10


def test_what_an_edit_list_hides_is_no_frame(tmp_path: Path) -> None:
    path = Recording(gop=1000).write_numbers(tmp_path, 30)
    edited = tmp_path / "edited.mp4"
    options = {"use_editlist": "1", "avoid_negative_ts": "disabled"}
    with av.open(str(path)) as source, av.open(str(edited), "w", options=options) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        hidden = None
        for packet in source.demux(video=0):
            if packet.dts is None or packet.pts is None:
                continue
            hidden = 10 * packet.duration if hidden is None else hidden
            packet.dts, packet.pts, packet.stream = packet.dts - hidden, packet.pts - hidden, stream
            target.mux(packet)
    video, complaint = scan_video(edited)
    assert complaint is None
    shown = [number_shown(read_frames(video, np.array([n]), HEIGHT)[0]) for n in range(len(video.pts))]
    assert shown == list(range(10, 30))


def write_with_sound(path: Path, frames: Sequence[np.ndarray]) -> Path:
    """MPEG-TS with a second stream, which is silent."""
    with av.open(str(path), "w") as container:
        video, sound = container.add_stream("mpeg2video", rate=24), container.add_stream("mp2", rate=44100)
        video.height, video.width = frames[0].shape[:2]
        video.pix_fmt = "yuv420p"
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 24)
            container.mux(video.encode(frame))
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 44100), np.int16), format="s16", layout="mono")
        silence.rate, silence.pts = 44100, 0
        container.mux([*video.encode(), *sound.encode(silence), *sound.encode()])
    return path


def test_a_stream_that_appears_late_ends_no_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(video_container.OPEN_OPTIONS, "probesize", "5000")  # small, as a long file's beginning is
    monkeypatch.setitem(video_container.OPEN_OPTIONS, "analyzeduration", "100000")
    silent = Recording("mpeg2video", "ts").write_numbers(tmp_path, 40).read_bytes()
    with_sound = write_with_sound(tmp_path / "sound.ts", [numbered(n) for n in range(40)]).read_bytes()
    late = tmp_path / "late.ts"
    late.write_bytes(silent + with_sound + silent * 60)  # without a tail of that length the end would be probed too
    with av.open(str(late), options=video_container.OPEN_OPTIONS) as container:
        assert len(container.streams) == 1
    video, complaint = scan_video(late)
    assert complaint is None
    assert len(video.pts) >= 40
    assert number_shown(read_frames(video, np.array([39]), HEIGHT)[0]) == 39
    assert number_shown(read_frames(video, np.array([len(video.pts) - 1]), HEIGHT)[0]) == 39


def test_a_frame_of_vp8_that_is_never_shown_is_no_frame(tmp_path: Path) -> None:
    path = Recording("libvpx", "webm", gop=1000, options={**VP9, "auto-alt-ref": "0"}).write_numbers(tmp_path, 30)
    hidden = tmp_path / "hidden.webm"
    with av.open(str(path)) as source, av.open(str(hidden), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(packet for packet in source.demux(video=0) if packet.size):
            content = bytearray(bytes(packet))
            if number == 10:
                content[0] &= ~0x10  # the header's bit `show_frame`
            copy = av.Packet(bytes(content))
            copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
            copy.is_keyframe, copy.stream = packet.is_keyframe, stream
            target.mux(copy)
    video, _ = scan_video(hidden)
    shown = [number_shown(read_frames(video, np.array([n]), HEIGHT)[0]) for n in range(len(video.pts))]
    assert shown == [*range(10), *range(11, 30)]


# Luma weights of red and blue.
MATRICES = {"BT.601": (0.299, 0.114), "BT.709": (0.2126, 0.0722)}
COLOURS = [(200, 60, 30), (30, 180, 90), (20, 40, 220), (255, 255, 255), (0, 0, 0), (128, 128, 128), (250, 200, 10)]


def to_yuv(rgb: tuple[int, int, int], matrix: str, full_range: bool) -> list[int]:
    """A colour as luma and chroma by the equations of the standards."""
    kr, kb = MATRICES[matrix]
    r, g, b = (channel / 255 for channel in rgb)
    luma = kr * r + (1 - kr - kb) * g + kb * b
    blue, red = (b - luma) / (2 - 2 * kb), (r - luma) / (2 - 2 * kr)
    values = (
        (255 * luma, 128 + 255 * blue, 128 + 255 * red)
        if full_range
        else (16 + 219 * luma, 128 + 224 * blue, 128 + 224 * red)
    )
    return [min(255, round(value)) for value in values]


def write_colours(path: Path, codec: str, pix_fmt: str, matrix: str, full_range: bool, tagged: bool) -> None:
    """One frame for each of `COLOURS`, lossless, given to the encoder as luma and chroma."""
    lossless = {"libx264": {"qp": "0"}, "libx265": {"x265-params": "lossless=1:log-level=none"}, "mjpeg": {"q": "1"}}
    with kept_usual(), av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=24, options=lossless.get(codec, {}))
        stream.width, stream.height, stream.pix_fmt = 64, 64, pix_fmt
        if tagged:
            stream.codec_context.color_range = 2 if full_range else 1
            stream.codec_context.colorspace = 1 if matrix == "BT.709" else 6
        for colour in COLOURS:
            frame = av.VideoFrame(64, 64, pix_fmt)
            for plane, value in zip(frame.planes, to_yuv(colour, matrix, full_range)):
                plane.update(bytes([value]) * plane.buffer_size)
            if tagged:
                frame.color_range, frame.colorspace = stream.codec_context.color_range, stream.codec_context.colorspace
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.mark.parametrize(
    ("codec", "suffix", "pix_fmt", "matrix", "full_range", "tagged"),
    [
        ("libx264", "mp4", "yuv420p", "BT.601", False, False),
        ("libx264", "mp4", "yuv420p", "BT.601", False, True),
        ("libx264", "mp4", "yuv420p", "BT.709", False, True),
        ("libx264", "mp4", "yuv420p", "BT.601", True, True),
        ("libx264", "mkv", "yuv420p", "BT.709", True, True),
        ("libx264", "mp4", "yuvj420p", "BT.601", True, False),
        ("libx264", "mp4", "yuvj420p", "BT.709", True, True),
        ("libx265", "mp4", "yuv420p", "BT.709", True, True),
        ("libx265", "mp4", "yuv420p", "BT.709", False, True),
        ("libvpx-vp9", "webm", "yuv420p", "BT.709", False, True),
        ("libvpx-vp9", "webm", "yuv420p", "BT.601", True, True),
        ("libsvtav1", "mkv", "yuv420p", "BT.709", True, True),
        ("mjpeg", "avi", "yuvj420p", "BT.601", True, False),
        ("mjpeg", "mov", "yuvj420p", "BT.601", True, False),
        ("ffv1", "mkv", "yuv444p", "BT.709", False, True),
        ("ffv1", "mkv", "yuv444p", "BT.601", True, True),
    ],
)
def test_colours_come_back(
    codec: str, suffix: str, pix_fmt: str, matrix: str, full_range: bool, tagged: bool, tmp_path: Path
) -> None:
    path = tmp_path / f"colours.{suffix}"
    write_colours(path, codec, pix_fmt, matrix, full_range, tagged)
    video, _ = scan_video(path)
    for resolution in (32, 64):
        frames = read_frames(video, np.arange(len(COLOURS)), resolution)
        centres = frames[:, resolution // 2, resolution // 2].astype(int)
        np.testing.assert_allclose(centres, COLOURS, atol=4)


@pytest.mark.parametrize("width", [48, 52, 58])  # the last columns of the latter two fill no register
@pytest.mark.parametrize("resolution", [16, 32, 40])
def test_scaled_colours_are_those_of_the_definition(width: int, resolution: int, tmp_path: Path) -> None:
    """Scale each plane, then convert (BT.601, limited range), all in float64; nothing is darker or brighter."""
    height, count = 40, 4
    rng = np.random.default_rng(0)
    sizes = [(height, width), (height // 2, width // 2), (height // 2, width // 2)]
    coarse = [rng.integers(60, 190, (count, 1, 6, 6)).astype(np.uint8) for _ in sizes]
    planes = [
        torch.nn.functional.interpolate(torch.from_numpy(c).float(), size, mode="bicubic").clamp(20, 235).round()
        for c, size in zip(coarse, sizes)
    ]
    with av.open(str(tmp_path / "video.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=24)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for number in range(count):
            pixels = np.concatenate([plane[number, 0].byte().numpy().reshape(-1) for plane in planes])
            frame = av.VideoFrame.from_ndarray(pixels.reshape(-1, width), format="yuv420p")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    video, _ = scan_video(tmp_path / "video.mkv")
    columns, rows = video.scaled_size(resolution)
    y, u, v = (
        torch.nn.functional.interpolate(plane.double(), (rows, columns), mode="bilinear", antialias=True)[:, 0]
        for plane in planes
    )
    y, u, v = (y - 16) * 255 / 219, (u - 128) * 255 / 224, (v - 128) * 255 / 224
    expected = torch.stack([y + 1.402 * v, y - 0.344136 * u - 0.714136 * v, y + 1.772 * u], -1).clamp(0, 255).numpy()
    difference = read_frames(video, np.arange(count), resolution) - expected
    assert abs(difference.mean(axis=(0, 1, 2))).max() < 0.15
    assert abs(difference).mean() < 0.6
    assert abs(difference).max(axis=(0, 1, 3)).max() < 8, "in no column"


@pytest.mark.parametrize(("codec", "pix_fmt"), [("libx264rgb", "rgb24"), ("ffv1", "bgr0"), ("ffv1", "gbrp10le")])
def test_colours_stored_as_rgb_come_back(codec: str, pix_fmt: str, tmp_path: Path) -> None:
    recording = Recording(codec, "mkv", pix_fmt, options={"qp": "0"} if codec == "libx264rgb" else {})
    path = recording.write(tmp_path / "rgb.mkv", [np.full((64, 64, 3), colour, np.uint8) for colour in COLOURS])
    frames = read_frames(scan_video(path)[0], np.arange(len(COLOURS)), 32)
    np.testing.assert_allclose(frames[:, 16, 16].astype(int), COLOURS, atol=2)


# Of the track header's matrix in 16.16 fixed point: a stored point (x, y) is shown at (a·x + c·y, b·x + d·y), y down.
# With each matrix what must be done to the stored frame to see it as the matrix says.
DISPLAYS: dict[str, tuple[tuple[int, int, int, int], Callable[[np.ndarray], np.ndarray]]] = {
    "as stored": ((1, 0, 0, 1), lambda frame: frame),
    "clockwise": ((0, 1, -1, 0), lambda frame: np.rot90(frame, -1)),
    "upside down": ((-1, 0, 0, -1), lambda frame: np.rot90(frame, 2)),
    "counter-clockwise": ((0, -1, 1, 0), np.rot90),
    "left and right changed": ((-1, 0, 0, 1), np.fliplr),
    "above and below changed": ((1, 0, 0, -1), np.flipud),
    "transposed": ((0, 1, 1, 0), lambda frame: frame.transpose(1, 0, 2)),
    "transposed the other way": ((0, -1, -1, 0), lambda frame: np.rot90(frame, 2).transpose(1, 0, 2)),
}


@pytest.mark.parametrize(("matrix", "shown"), DISPLAYS.values(), ids=DISPLAYS.keys())
def test_frames_are_upright(
    matrix: tuple[int, int, int, int], shown: Callable[[np.ndarray], np.ndarray], tmp_path: Path
) -> None:
    stored = np.zeros((48, 64, 3), np.uint8)
    stored[:24, :32, 0], stored[:24, 32:, 1], stored[24:, :32, 2] = 200, 150, 250
    path = Recording(options={"crf": "10"}).write(tmp_path / "turned.mp4", [stored] * 3)
    content = bytearray(path.read_bytes())
    a, b, c, d = (value << 16 for value in matrix)
    start = content.index(b"tkhd") + 4 + 40
    content[start : start + 36] = np.array([a, b, 0, c, d, 0, 0, 0, 1 << 30], ">i4").tobytes()
    path.write_bytes(content)
    frame = read_frames(scan_video(path)[0], np.array([1]), 48)[0]
    expected = shown(stored)
    assert frame.shape == expected.shape
    for y, x in itertools.product((1, 3), repeat=2):
        point = frame.shape[0] * y // 4, frame.shape[1] * x // 4
        np.testing.assert_allclose(frame[point].astype(int), expected[point], atol=12)


@pytest.mark.parametrize("aspect", [Fraction(2), Fraction(1, 2), Fraction(64, 51)])
def test_pixels_become_square(aspect: Fraction, tmp_path: Path) -> None:
    path = Recording(pixel_aspect=aspect).write_numbers(tmp_path, 3)
    frames = read_frames(scan_video(path)[0], np.array([2]), 32)
    assert min(frames.shape[1:3]) == 32
    assert frames.shape[2] / frames.shape[1] == pytest.approx(WIDTH * aspect / HEIGHT, rel=0.03)
    assert number_shown(frames[0]) == 2


@pytest.mark.parametrize(
    ("width", "height"), [(65, 49), (49, 65), (33, 33), (48, 200), (17, 19), (16, 16), (256, 16), (97, 31)]
)
@pytest.mark.parametrize("resolution", [16, 31, 64])
def test_any_size_is_scaled_to_the_resolution(width: int, height: int, resolution: int, tmp_path: Path) -> None:
    path = Recording(pix_fmt="yuv444p").write_numbers(tmp_path, 3, width, height)
    frames = read_frames(scan_video(path)[0], np.array([0, 1, 2]), resolution)
    assert min(frames.shape[1:3]) == resolution
    assert frames.shape[2] / frames.shape[1] == pytest.approx(width / height, rel=0.06)
    assert [number_shown(frame) for frame in frames] == [0, 1, 2]


@pytest.mark.parametrize(
    ("width", "height", "aspect", "reason"),
    [
        (64, 8, None, "too small"),
        (14, 64, None, "too small"),
        (320, 18, None, "too long a side"),
        (16, 272, None, "too long a side"),
        (64, 48, Fraction(13), "too long a side"),
        (64, 48, Fraction(1, 8), "too small"),
    ],
)
def test_tiny_and_extreme_sizes_are_refused(
    width: int, height: int, aspect: Fraction | None, reason: str, tmp_path: Path
) -> None:
    path = Recording(pixel_aspect=aspect).write_numbers(tmp_path, 3, width, height)
    with pytest.raises(UnusableError, match=reason):
        scan_video(path)


@pytest.mark.parametrize("suffix", ["ts", "h264"])
def test_a_size_that_changes_in_mid_stream_is_scaled_to_one(suffix: str, tmp_path: Path) -> None:
    parts = [(64, 48), (96, 80)]
    content = b""
    for part, (width, height) in enumerate(parts):
        times = [round(1000 * (n + 12 * part) / 24) for n in range(12)]
        recording = Recording(suffix=suffix, times=times, options={"x264-params": "repeat-headers=1"})
        frames = [numbered(n + 12 * part, width, height) for n in range(12)]
        content += recording.write(tmp_path / f"part.{suffix}", frames).read_bytes()
    path = tmp_path / f"both.{suffix}"
    path.write_bytes(content)
    video, _ = scan_video(path)
    frames = read_frames(video, np.arange(8, 16), 48)
    assert frames.shape == (8, 48, 64, 3)
    assert [number_shown(frame) for frame in frames] == list(range(8, 16))


@pytest.mark.parametrize("share", [0.5, 0.8])
@pytest.mark.parametrize(
    "recording",
    [
        Recording(b_frames=3, container_options={"movflags": "faststart"}),
        Recording(suffix="mkv", b_frames=3),
        Recording(suffix="ts", b_frames=3),
        Recording("mpeg4", "avi", b_frames=2),
        Recording("libvpx-vp9", "webm", options=VP9),
    ],
    ids=lambda recording: f"{recording.codec} in {recording.suffix}",
)
def test_of_a_truncated_file_the_beginning_can_be_read(recording: Recording, share: float, tmp_path: Path) -> None:
    path = recording.write_numbers(tmp_path, 200)
    content = path.read_bytes()
    path.write_bytes(content[: round(len(content) * share)])
    video, complaint = scan_video(path)
    assert 20 < len(video.pts) < 200
    assert (complaint or "truncated").startswith("truncated")
    assert (recording.suffix != "mp4") or complaint is not None
    frames = read_frames(video, np.arange(10, 14), HEIGHT)
    assert [number_shown(frame) for frame in frames] == [10, 11, 12, 13]


def test_damage_is_never_a_crash(tmp_path: Path) -> None:
    path = Recording(b_frames=3).write_numbers(tmp_path, 40)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    outcomes = set()
    for trial in range(40):
        damaged = bytearray(content)
        for position in rng.integers(40, len(content), size=20):
            damaged[position] ^= 1 << int(rng.integers(8))
        broken = tmp_path / f"{trial}.mp4"
        broken.write_bytes(damaged)
        try:
            video, _ = scan_video(broken)
            assert read_frames(video, np.arange(8, 12).clip(max=len(video.pts) - 1), 32).dtype == np.uint8
            outcomes.add("read")
        except UnusableError:
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}


def test_a_file_that_has_gone_is_unusable(tmp_path: Path) -> None:
    path = Recording().write_numbers(tmp_path, 5)
    video, _ = scan_video(path)
    path.unlink()
    with pytest.raises(UnusableError, match="No such file"):
        read_frames(video, np.array([0]), 32)


def test_an_index_that_names_a_frame_the_file_lacks_is_an_error_not_another_frame(tmp_path: Path) -> None:
    video, _ = scan_video(Recording().write_numbers(tmp_path, 10))
    wrong = replace(video, pts=video.pts + 1)
    with pytest.raises(UnusableError, match="damaged: 2 frames"):
        read_frames(wrong, np.array([3, 4]), 32)


def test_a_title_in_another_encoding_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "titled.mkv"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "TITLE"
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(numbered(1), format="rgb24")))
        container.mux(stream.encode())
    path.write_bytes(path.read_bytes().replace(b"TITLE", b"\xe9\xff\xfe\xe8\xe0"))
    assert len(scan_video(path)[0].pts) == 1


def test_written_videos_are_read_back(tmp_path: Path) -> None:
    frames = np.stack([numbered(n) for n in range(10)])
    write_video(tmp_path / "written.mp4", frames, 24)
    video, complaint = scan_video(tmp_path / "written.mp4")
    read = read_frames(video, np.arange(10), HEIGHT)
    assert complaint is None
    assert [number_shown(frame) for frame in read] == list(range(10))
    assert np.abs(read.astype(int) - frames).mean() < 3
    np.testing.assert_allclose(video.seconds, np.arange(10) / 24, atol=1e-4)


def test_an_index_is_small_and_complete(tmp_path: Path) -> None:
    video, _ = scan_video(Recording(gop=10, options={"x264-params": "scenecut=0"}).write_numbers(tmp_path, 40))
    assert isinstance(video, VideoFile)
    assert (video.width, video.height, video.pixel_aspect, video.rotation, video.mirrored) == (64, 48, 1.0, 0, False)
    assert len(video.keyframes) == 4


@pytest.mark.parametrize("recording", RECORDINGS.values(), ids=RECORDINGS.keys())
def test_a_stream_gives_the_same_frames_in_one_pass(recording: Recording, tmp_path: Path) -> None:
    count = 40
    video, _ = scan_video(recording.write_numbers(tmp_path, count))
    positions = np.arange(count)
    expected = read_frames(video, positions, HEIGHT)
    for positions, chunks in [
        (np.arange(count), [(0, 16), (16, 16), (32, 16)]),  # in order
        (np.arange(count), [(16, 8), (24, 16), (0, 3)]),  # with seeks between
        (np.arange(0, count, 3), [(0, 5), (5, 5), (10, 9)]),  # every third
        (np.repeat(np.arange(count), 2), [(0, 31), (31, 49)]),  # each twice, a pair cut in two
    ]:
        stream = FrameStream(video, positions, HEIGHT, 1)
        for first, size in chunks:
            np.testing.assert_array_equal(stream.read(first, size), expected[positions[first : first + size]])
        stream.close()


def test_a_stream_decodes_no_frame_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    frames_from = video_reader._frames_from

    def counted(*arguments: Any) -> Iterator[Any]:
        for pts, frame in frames_from(*arguments):
            seen.append(pts)
            yield pts, frame

    monkeypatch.setattr(video_reader, "_frames_from", counted)
    video, _ = scan_video(Recording(gop=1000, b_frames=2).write_numbers(tmp_path, 60))
    stream = FrameStream(video, np.arange(60), HEIGHT, 1)
    for first in range(0, 60, 8):
        stream.read(first, 8)
    assert seen == video.pts.tolist()


@pytest.mark.parametrize(("width", "height"), [(64, 48), (70, 50), (48, 64), (100, 32)])
def test_sides_are_multiples_where_asked_for(width: int, height: int, tmp_path: Path) -> None:
    video, _ = scan_video(Recording().write_numbers(tmp_path, 4, width, height))
    frames = read_frames(video, np.arange(2), 32, 16)
    rows, columns = frames.shape[1:3]
    assert min(rows, columns) == 32
    assert rows % 16 == columns % 16 == 0
    assert abs(columns / rows - width / height) <= 8 / 32
