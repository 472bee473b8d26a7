"""A discriminator that looks through a network which knows pictures already."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from vqgan.discriminators.vit import ViT
from vqgan.errors import ConfigError, check

URL = "https://dl.fbaipublicfiles.com/dino/dino_deitsmall16_pretrain/dino_deitsmall16_pretrain.pth"


class DINO(nn.Module):
    """Small heads on the tokens of a frozen vision transformer (StyleGAN-T, Sauer et al. 2023, arXiv:2301.09515).

    A head looks at the tokens that enter the transformer, and one at those that leave each block of `blocks`; patch
    tokens have the class token added. Each head gives a logit for each patch:
    1×1 → (x + 9-wide ring)/√2 → 1×1, spectrally normalised, leaky by 0.2.

    GigaTok (arXiv:2504.08736) found it to better rFID from 0.81 to 0.51 where LPIPS stayed as it was. For frames of 128
    pixels and more: all are resized to the transformer's 224. It costs a forward and a backward pass of the
    transformer a frame.

    Here a head's norm is of each sample's own (one group of all channels and tokens), where StyleGAN-T has one over
    eight samples, so that nothing couples samples, and there is no augmentation.

    Args:
        weights: file with DINO's ViT-S/16, as torch.hub has it; another one of DINO's will do as well.
        blocks: whose tokens the heads look at, counted from 0.
        channels: width of the heads.

    Raises:
        ConfigError: the file is missing, or holds something else.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, weights: str | None, blocks: Sequence[int], channels: int) -> None:
        check(channels > 0, "channels", channels, "positive")
        if weights is None:
            raise ConfigError(
                "The DINO discriminator needs the weights of a vision transformer. Download them once, and name the "
                f"file: discriminator.weights=FILE. They are at {URL}."
            )
        super().__init__()
        self.vit = ViT(Path(weights).expanduser(), "discriminator.weights")
        depth = len(self.vit.blocks)
        check(all(0 <= block < depth for block in blocks), "blocks", list(blocks), f"in [0, {depth})")
        self.taps = sorted({0, *(block + 1 for block in blocks)})
        self.heads = nn.ModuleList(Head(self.vit.width, channels) for _ in self.taps)
        # ImageNet's mean and deviation, for inputs in [-1, 1]
        shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
        self.register_buffer("shift", shift.view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", scale.view(1, 3, 1, 1), persistent=False)

    def forward(
        self, frames: Float[Tensor, "batch time rgb height width"]
    ) -> Float[Tensor, "batch time heads rows columns"]:
        """A logit per head and patch, of frames in [-1, 1]."""
        with torch.autocast(frames.device.type, enabled=False):
            pictures = (resized(frames.flatten(0, 1).float(), self.vit.side) - self.shift) / self.scale
        layers = itertools.islice(self.vit(pictures), max(self.taps) + 1)
        seen = [tokens for i, tokens in enumerate(layers) if i in self.taps]
        logits = [head((tokens[:, 1:] + tokens[:, :1]).mT) for head, tokens in zip(self.heads, seen)]
        grid = (self.vit.grid, self.vit.grid)
        return torch.cat(logits, dim=1).unflatten(2, grid).unflatten(0, frames.shape[:2])


class Head(nn.Module):
    """Tokens to a logit each."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.enter, self.ring = _layer(width, channels, 1), _layer(channels, channels, 9)
        self.leave = spectral_norm(nn.Conv1d(channels, 1, 1), eps=1e-12)

    def forward(self, tokens: Float[Tensor, "n width patches"]) -> Float[Tensor, "n 1 patches"]:
        """The patches row by row."""
        h = self.enter(tokens)
        return self.leave((h + self.ring(h)) * 0.5**0.5)


def _layer(a: int, b: int, kernel: int) -> nn.Module:
    convolution = nn.Conv1d(a, b, kernel, padding=kernel // 2, padding_mode="circular")
    return nn.Sequential(spectral_norm(convolution, eps=1e-12), nn.GroupNorm(1, b), nn.LeakyReLU(0.2))


def resized(pictures: Float[Tensor, "n c height width"], side: int) -> Float[Tensor, "n c side side"]:
    """Bilinear and antialiased, as `interpolate`, but with gradients that are the same from run to run on GPUs too."""
    height, width = pictures.shape[2:]
    if (height, width) == (side, side):
        return pictures
    return _resizing(height, side, pictures) @ pictures @ _resizing(width, side, pictures).mT


def _resizing(size: int, side: int, like: Tensor) -> Tensor:
    """The matrix that resizes columns of `size` values to `side`."""
    each = torch.eye(size, device=like.device)[None, None]
    return F.interpolate(each, (side, size), mode="bilinear", antialias=True)[0, 0]
