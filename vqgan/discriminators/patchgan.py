"""A discriminator that judges patches."""

from __future__ import annotations

import itertools
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from vqgan.errors import check
from vqgan.frames import per_frame
from vqgan.layers import ActNorm, BatchNorm


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
                ActNorm(b) if norm == "actnorm" else BatchNorm(b),
                nn.LeakyReLU(0.2),
            ]
        parts.append(nn.Conv2d(widths[-1], 1, 4, padding=1))
        self.main = nn.Sequential(*parts)
        self.apply(_initialize)

    def forward(
        self, frames: Float[Tensor, "batch time rgb height width"]
    ) -> Float[Tensor, "batch time 1 rows columns"]:
        """A logit per patch of frames in [-1, 1]."""
        return per_frame(self.main, frames)


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
