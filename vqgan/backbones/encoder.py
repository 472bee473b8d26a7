"""Frames to latents."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vqgan.backbones.blocks import Downsample, Level, Middle, normalization
from vqgan.backbones.sizes import Sizes
from vqgan.frames import per_frame


class ConvolutionalEncoder(nn.Module):
    """Levels of falling resolution, then the middle (reference: `Encoder` of taming-transformers' `model.py`)."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(sizes.image_channels, sizes.channels, 3, padding=1)
        width, last = sizes.channels, len(sizes.channel_multipliers) - 1
        self.down = nn.ModuleList()
        for i in range(last + 1):
            self.down.append(DownLevel(sizes, i, width, last=i == last))
            width = sizes.channels_at(i)
        self.mid = Middle(width, sizes)
        self.norm_out = normalization(width, sizes.norm_groups)
        self.conv_out = nn.Conv2d(width, sizes.latent_channels, 3, padding=1)

    def forward(
        self, frames: Float[Tensor, "batch time rgb height width"]
    ) -> Float[Tensor, "batch time latent rows columns"]:
        """Map frames in [-1, 1] to latents, `downsampling` pixels to a row or column."""
        return per_frame(self.pictures, frames)

    def pictures(self, frames: Float[Tensor, "frames rgb h w"]) -> Float[Tensor, "frames latent rows columns"]:
        """The same of pictures."""
        h = self.conv_in(frames)
        for level in self.down:
            h = level(h)
        return self.conv_out(F.silu(self.norm_out(self.mid(h))))


class DownLevel(Level):
    """The blocks of one resolution, then half of it, except at the last level."""

    def __init__(self, sizes: Sizes, level: int, in_channels: int, last: bool) -> None:
        super().__init__(sizes, level, in_channels, sizes.residual_blocks)
        self.downsample = nn.Identity() if last else Downsample(sizes.channels_at(level))

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n out h2 w2"]:
        """Run the blocks, then lower the resolution."""
        return self.downsample(super().forward(x))
