"""The reference's tensors and inputs by formula, and its names in ours (see tests/golden/README.md)."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

FOLDER = Path(os.environ.get("GOLDEN_DIR", Path(__file__).parent.parent / "golden"))
RENAMED = {
    "quantize.embedding.weight": "quantizer.codebook",
    "quantize.embedding.cluster_size": "quantizer.cluster_sizes",
    "quantize.embedding.embed_avg": "quantizer.cluster_sums",
}


def ours(name: str) -> str:
    """The autoencoder's name of a tensor that the reference calls `name`."""
    return RENAMED.get(name, name)


def filled(name: str, shape: list[int]) -> Tensor:
    """The values of the tensor that the reference calls `name`."""
    i = np.arange(np.prod(shape, dtype=int))
    phase = zlib.crc32(name.encode()) % 10007
    u = np.sin(i * 12.9898 + phase * 0.61803398875) * 43758.5453
    u = 2 * (u - np.floor(u)) - 1
    if name.endswith(("quantize.embedding.weight", "embed_avg")):
        v = 0.5 * u
    elif len(shape) >= 2:
        v = u * np.sqrt(3 / np.prod(shape[1:]))
    elif name.endswith("weight"):
        v = 1 + 0.1 * u
    else:
        v = 0.05 * u
    return torch.from_numpy(v.astype(np.float32).reshape(shape))


def inputs(b: int, c: int, h: int, w: int, s: int) -> Tensor:
    """The frames of step s."""
    y, x = np.meshgrid(np.arange(h), np.arange(w), indexing="ij")
    frames = [
        np.stack([np.sin(0.3 * (x + 3 * s + 5 * k)) * np.cos(0.2 * (y - 2 * s) + ch) for ch in range(c)])
        for k in range(b)
    ]
    return torch.from_numpy(np.stack(frames).astype(np.float32))
