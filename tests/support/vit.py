"""A file like DINO's vision transformers, small and with random weights."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor


def vit_state(width: int = 64, patch: int = 4, grid: int = 3, depth: int = 3) -> dict[str, Tensor]:
    """The tensors by name."""
    generator = torch.Generator().manual_seed(4)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) / 5

    state = {
        "cls_token": drawn(1, 1, width), "pos_embed": drawn(1, 1 + grid**2, width),
        "patch_embed.proj.weight": drawn(width, 3, patch, patch), "patch_embed.proj.bias": drawn(width),
        "norm.weight": drawn(width), "norm.bias": drawn(width),  # of the last tokens, which nobody looks at
    }  # fmt: skip
    layers = {"attn.qkv": (3 * width, width), "attn.proj": (width, width)}
    layers |= {"mlp.fc1": (2 * width, width), "mlp.fc2": (width, 2 * width)}
    for block in range(depth):
        for norm in ("norm1", "norm2"):
            state |= {f"blocks.{block}.{norm}.weight": 1 + drawn(width), f"blocks.{block}.{norm}.bias": drawn(width)}
        for name, (out, into) in layers.items():
            state |= {f"blocks.{block}.{name}.weight": drawn(out, into), f"blocks.{block}.{name}.bias": drawn(out)}
    return state


def vit_file(folder: Path, depth: int = 3) -> Path:
    """A file of them."""
    file = folder / "vit.pth"
    torch.save(vit_state(depth=depth), file)
    return file
