"""Encoding a folder of videos, against the slower of its two halves: reading alone, and the network alone.

    python bench/encode.py VIDEOS [--backbone tiny] [--resolution 64] [--workers 2] [--rounds 3]

All three go over the same frames in the same batches. With the reading in other processes, encoding cannot be faster
than the slower half; on a machine whose cores are all taken by the network, not faster than both after each other.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import shutil
import tempfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from measure import alternating, machine, ratio, table

from vqgan.backbones import Convolutional, Memory
from vqgan.config.build import build, conf_dir
from vqgan.data.reading.files import find_files
from vqgan.data.reading.streams import in_turn
from vqgan.data.reading.workers import read_jobs
from vqgan.data.videos import VIDEO_FILES
from vqgan.quantizers import VectorQuantizer
from vqgan.tokenizer.encode import encoding_with
from vqgan.tokenizer.encode_folder import FolderEncoder
from vqgan.tokenizer.encode_folder import Frames as FrameSource
from vqgan.tokenizer.inference import encode_batch, move_to
from vqgan.tokenizer.tokenizer import Tokenizer
from vqgan.video.file import scan_video


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path)
    parser.add_argument("--backbone", default="tiny")
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("train", [f"backbone={args.backbone}", f"data.resolution={args.resolution}"])
    backbone: Convolutional = build(config.backbone, "backbone")
    tokenizer = Tokenizer(backbone, VectorQuantizer(1024, 16, 0.25, 1.0), {})
    encoding = replace(
        encoding_with({"resolution": args.resolution, "precision": args.precision}), workers=args.workers
    )
    move_to(tokenizer, encoding.device)
    with tempfile.TemporaryDirectory() as folder:
        encoder = FolderEncoder(tokenizer, encoding, args.videos, Path(folder) / "tokens")
        videos = [scan_video(file)[0] for file in find_files(args.videos, "VIDEOS", VIDEO_FILES.suffixes)]
        counts = [len(encoder.reading.positions(video)) for video in videos]
        batches = list(in_turn([range(len(videos))], counts, encoder.parts.firsts))

        def read(keep: list[torch.Tensor] | None = None) -> None:
            results = read_jobs(
                FrameSource(videos, encoder.reading, encoder.parts).read,
                batches,
                encoding.workers,
                encoding.limits,
                lambda video: videos[video].path,
            )
            with closing(results):
                for clip in results:
                    if keep is not None:
                        keep.append(clip.clone())

        clips: list[torch.Tensor] = []
        read(clips)

        def network() -> None:
            memory = Memory()
            for (_, first), clip in zip(filter(None, batches), clips):
                memory = Memory() if first == 0 else memory
                encode_batch(tokenizer, clip, encoding.work, memory).cpu()

        def encode() -> None:
            shutil.rmtree(encoder.out, ignore_errors=True)
            with contextlib.redirect_stderr(io.StringIO()):
                encoder.run()

        seconds = alternating({"reading alone": read, "network alone": network, "encode": encode}, args.rounds)
    frames = sum(counts)
    rows = [
        [name, frames / sorted(times)[len(times) // 2], f"{ratio(seconds, name, 'encode'):.2f}"]
        for name, times in seconds.items()
    ]
    print(f"{machine()}; {os.cpu_count()} cores\n")
    print(f"{frames} frames of {len(videos)} videos, backbone {args.backbone}, {args.resolution} pixels, "
          f"{args.precision}, {args.workers} workers\n")  # fmt: skip
    print(table(["", "frames/s", "time as a share of encode's"], rows))


if __name__ == "__main__":
    main()
