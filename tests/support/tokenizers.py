"""A small tokenizer with random weights, as a folder, and videos for it."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.support.networks import BACKBONE
from tests.unit.video.test_video_file import Recording
from vqgan.backbones import Convolutional
from vqgan.quantizers import VectorQuantizer
from vqgan.tokenizer.folder import description_of, write
from vqgan.tokenizer.tokenizer import Tokenizer

CODES = 300


def random_tokenizer(codes: int = CODES, seed: int = 0) -> Tokenizer:
    torch.manual_seed(seed)
    values = {"codebook_size": codes, "latent_dim": 4, "commitment_weight": 0.25, "codebook_weight": 1.0}
    backbone = {"class": "Convolutional", **BACKBONE}
    description = description_of(backbone, {"class": "VectorQuantizer", **values})
    tokenizer = Tokenizer(Convolutional(**BACKBONE), VectorQuantizer(codes, 4, 0.25, 1.0), description)
    with torch.no_grad():
        tokenizer.quantizer.codebook.normal_()
    return tokenizer.eval()


def write_tokenizer(folder: Path, codes: int = CODES, seed: int = 0) -> Tokenizer:
    tokenizer = random_tokenizer(codes, seed)
    write(folder, tokenizer.description, tokenizer.state_dict(), None, "")
    return tokenizer


def write_videos(folder: Path) -> list[str]:
    """Five videos of several sizes, lengths, containers and frame rates, in a tree; returns their names."""
    (folder / "more").mkdir(parents=True)
    made = {
        "a.mp4": (Recording(b_frames=2), 21, 64, 48),
        "b.mkv": (Recording(suffix="mkv", times=[0, 40, 90, 100, 300, 341, 399]), 7, 48, 64),
        "more/a.mp4": (Recording(gop=1000), 40, 96, 32),
        "more/c.avi": (Recording("mpeg4", "avi"), 9, 80, 64),
        "more/d.ts": (Recording("mpeg2video", "ts", b_frames=2), 12, 64, 64),
    }
    for name, (recording, frames, width, height) in made.items():
        recording.write_numbers(folder, frames, width, height).rename(folder / name)
    return sorted(made)
