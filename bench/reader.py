"""Random clips from one video: our reader against other decoders, and against its ceiling.

    python bench/reader.py [--frames 900] [--size 1280x720] [--gop 12 250] [--clips 25] [--rounds 5]

The ceiling is decoding the same frames with the same decoder and throwing them away. torchcodec, decord and OpenCV take
part where they are installed (`pip install torchcodec==0.13.0 decord opencv-python-headless`; torchcodec needs FFmpeg's
libraries too). Every contestant has one thread and gives 16 frames as rgb with a shorter side of 256.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import av
import numpy as np
import torch
from measure import alternating, machine, ratio, table

from vqgan.video.file import VideoFile, scan_video
from vqgan.video.reader import read_frames

TIME, SIDE = 16, 256
Reader = Callable[[int], object]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=900)
    parser.add_argument("--size", default="1280x720")
    parser.add_argument("--gop", type=int, nargs="+", default=[12, 250])
    parser.add_argument("--clips", type=int, default=25, help="per round")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{machine()}\n\nh264 {args.size}, {args.frames} frames, random clips of {TIME} frames, one thread\n")
    for gop in args.gop:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "video.mp4"
            write(path, args.frames, *map(int, args.size.split("x")), gop)
            video, _ = scan_video(path)
            contestants = {"vqgan": partial(ours, video)}
            contestants["decoding alone"] = partial(decode_and_discard, video)
            contestants |= others(video)
            starts = np.random.default_rng(0).integers(args.frames - TIME, size=args.clips).tolist()
            runs = {name: partial(read_all, read, starts) for name, read in contestants.items()}
            seconds = alternating(runs, args.rounds)
        rows = [
            [name, TIME * args.clips / float(np.median(seconds[name])), f"{ratio(seconds, name, 'vqgan'):.2f}"]
            for name in seconds
        ]
        print(f"GOP {gop}\n\n{table(['reader', 'frames/s', 'time as a multiple of ours'], rows)}\n")


def read_all(read: Reader, starts: list[int]) -> None:
    """One clip after the other."""
    for start in starts:
        read(start)


def ours(video: VideoFile, start: int) -> object:
    """As the training data are read."""
    return read_frames(video, np.arange(start, start + TIME), SIDE)


def decode_and_discard(video: VideoFile, start: int) -> object:
    """The same frames, decoded by the same decoder, and nothing done with them."""
    container = _open(video.path)
    stream = container.streams.video[0]
    first, last = int(video.pts[start]), int(video.pts[start + TIME - 1])
    container.seek(int(video.keyframes[video.keyframes <= first][-1]), stream=stream, backward=True)
    for packet in container.demux(stream):
        early = packet.pts is not None and packet.pts < first
        stream.codec_context.skip_frame = "NONREF" if early else "DEFAULT"
        for frame in packet.decode():
            if frame.pts is not None and frame.pts >= last:
                return frame
    return None


_opened: dict[Path, av.container.InputContainer] = {}


def _open(path: Path) -> av.container.InputContainer:
    if path not in _opened:
        _opened.clear()
        _opened[path] = av.open(str(path))
        _opened[path].streams.video[0].codec_context.thread_count = 1
    return _opened[path]


def others(video: VideoFile) -> dict[str, Reader]:
    """The decoders that are installed, each with the file open."""
    width, height = video.scaled_size(SIDE)
    found: dict[str, Reader] = {}
    if importlib.util.find_spec("torchcodec"):
        from torchcodec.decoders import VideoDecoder
        from torchcodec.transforms import Resize

        with contextlib.suppress(ImportError, RuntimeError):  # its transforms need a torchvision that works
            resized = VideoDecoder(video.path, num_ffmpeg_threads=1, transforms=[Resize((height, width))])
            found["torchcodec, its own resize"] = lambda start: resized.get_frames_in_range(start, start + TIME).data
        decoder = VideoDecoder(video.path, num_ffmpeg_threads=1)

        def interpolated(start: int) -> object:
            frames = decoder.get_frames_in_range(start, start + TIME).data
            return torch.nn.functional.interpolate(frames, (height, width), mode="bilinear", antialias=True)

        found["torchcodec, torch's resize"] = interpolated
    if importlib.util.find_spec("decord"):
        import decord

        reader = decord.VideoReader(str(video.path), width=width, height=height, num_threads=1)
        found["decord"] = lambda start: reader.get_batch(range(start, start + TIME)).asnumpy()
    if importlib.util.find_spec("cv2"):
        import cv2

        cv2.setNumThreads(1)
        capture = cv2.VideoCapture(str(video.path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])

        def with_opencv(start: int) -> object:
            capture.set(cv2.CAP_PROP_POS_FRAMES, start)
            frames = [capture.read()[1] for _ in range(TIME)]
            return np.stack([cv2.cvtColor(cv2.resize(f, (width, height)), cv2.COLOR_BGR2RGB) for f in frames])

        found["OpenCV"] = with_opencv
    return found


def write(path: Path, frames: int, width: int, height: int, gop: int) -> None:
    """A video of drifting waves with noise, as x264 encodes it with B-frames."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    noise = np.random.default_rng(0).normal(0, 6, (8, height, width, 3)).astype(np.float32)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"preset": "veryfast", "crf": "23", "g": str(gop)})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(frames):
            waves = [np.sin(0.02 * (x + 5 * number) + k) * np.cos(0.03 * (y - 3 * number)) for k in range(3)]
            picture = 127.5 + 90 * np.stack(waves, -1) + noise[number % 8]
            frame = av.VideoFrame.from_ndarray(picture.clip(0, 255).astype(np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


if __name__ == "__main__":
    main()
