"""A discriminator that judges patches of clips."""

from __future__ import annotations

import itertools
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from vqgan.errors import check
from vqgan.frames import per_frame
from vqgan.layers import ActNorm, BatchNorm

TIME_STRIDES = 2  # layers that halve time, the first ones: 17 frames have 5 times of logits


class PatchGAN3D(nn.Module):
    """pix2pix's patch discriminator (arXiv:1611.07004) with 3×4×4 convolutions: it sees how patches move.

    Its first two layers halve time too, t to ⌈t / 2⌉, so a clip costs no more than its frames one by one; a picture is
    a clip of one frame. Norms are over clips and times, as those of the other are over frames.

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
        parts: list[nn.Module] = [_convolution(image_channels, channels, 0, 2, bias=True), nn.LeakyReLU(0.2)]
        for i, (a, b) in enumerate(itertools.pairwise(widths), start=1):
            parts += [
                _convolution(a, b, i, 2 if i < layers else 1, bias=norm == "actnorm"),
                FrameNorm(ActNorm(b) if norm == "actnorm" else BatchNorm(b)),
                nn.LeakyReLU(0.2),
            ]
        parts.append(_convolution(widths[-1], 1, len(widths), 1, bias=True))
        self.main = nn.Sequential(*parts)
        self.apply(_initialize)

    def forward(
        self, frames: Float[Tensor, "batch time rgb height width"]
    ) -> Float[Tensor, "batch times 1 rows columns"]:
        """A logit per patch of clips in [-1, 1]."""
        return self.main(frames.transpose(1, 2)).transpose(1, 2)


class FrameNorm(nn.Module):
    """A norm of pictures, whose statistics are over samples, times and places, for clips (batch, c, time, h, w)."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Float[Tensor, "batch c time h w"]) -> Float[Tensor, "batch c time h w"]:
        """Normalise each channel."""
        return per_frame(self.norm, x.transpose(1, 2)).transpose(1, 2)


def _convolution(channels: int, out: int, layer: int, stride: int, bias: bool) -> nn.Conv3d:
    strides = (2 if layer < TIME_STRIDES else 1, stride, stride)
    return nn.Conv3d(channels, out, (3, 4, 4), stride=strides, padding=1, bias=bias)


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Conv3d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
