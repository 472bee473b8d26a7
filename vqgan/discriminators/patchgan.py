"""A discriminator that judges patches."""

from __future__ import annotations

import itertools
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vqgan.errors import check
from vqgan.start import StartsFromData


class PatchGAN(nn.Module):
    """The patch discriminator of pix2pix (Isola et al. 2017, arXiv:1611.07004).

    Reference: `NLayerDiscriminator` of taming-transformers, whose parameter names (`main.0.weight` …) and
    initialisation it keeps.

    Args:
        image_channels: 3 for rgb.
        channels: width of the first layer; doubles with each layer up to eight times that.
        layers: strided layers; each doubles the side of a patch's stride.
        norm: `batch` (then inner convolutions have no bias) or `actnorm`.
    """

    def __init__(self, image_channels: int, channels: int, layers: int, norm: Literal["batch", "actnorm"]) -> None:
        check(channels > 0, "channels", channels, "positive")
        check(layers > 0, "layers", layers, "positive")
        super().__init__()
        widths = [channels * min(2**i, 8) for i in range(layers + 1)]
        parts: list[nn.Module] = [nn.Conv2d(image_channels, channels, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for i, (a, b) in enumerate(itertools.pairwise(widths), start=1):
            stride = 2 if i < layers else 1
            parts += [
                nn.Conv2d(a, b, 4, stride=stride, padding=1, bias=norm == "actnorm"),
                ActNorm(b) if norm == "actnorm" else nn.BatchNorm2d(b),
                nn.LeakyReLU(0.2),
            ]
        parts.append(nn.Conv2d(widths[-1], 1, 4, padding=1))
        self.main = nn.Sequential(*parts)
        self.apply(_initialize)

    def forward(self, frames: Float[Tensor, "frames rgb height width"]) -> Float[Tensor, "frames 1 rows columns"]:
        """A logit per patch of frames in [-1, 1]."""
        return self.main(frames)


class ActNorm(StartsFromData):
    """Per-channel scale and shift that start by whitening the first training batch (Glow, arXiv:1807.03039)."""

    initialized: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.scale = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.register_buffer("initialized", torch.tensor(0, dtype=torch.uint8))

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """scale · (x + loc)."""
        if self.training and not self.has_started():
            self._start_from(x)
        return self.scale * (x + self.loc)

    @torch.no_grad()
    def _start_from(self, x: Float[Tensor, "n c h w"]) -> None:
        deviation, mean = torch.std_mean(x.float(), dim=(0, 2, 3), keepdim=True)  # unbiased, as the reference
        if (deviation + mean).isfinite().all():  # else the step is skipped, and the next one is the first
            # `data`, since a skipped step's graph of the batch before, which was not finite, may hold these values.
            self.loc.data.copy_(-mean)
            self.scale.data.copy_(1 / (deviation + 1e-6))
            self.initialized.fill_(1)

    def _start_flag(self) -> Tensor:
        return self.initialized


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
