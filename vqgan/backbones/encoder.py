"""Frames to latents."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vqgan.backbones.backbone import Backbone
from vqgan.backbones.blocks import Downsample, Level, Middle, normalization


class Encoder(nn.Module):
    """Levels of falling resolution, then the middle (reference: `Encoder` of taming-transformers' `model.py`)."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(backbone.image_channels, backbone.channels, 3, padding=1)
        width, last = backbone.channels, len(backbone.channel_multipliers) - 1
        self.down = nn.ModuleList()
        for i in range(last + 1):
            self.down.append(DownLevel(backbone, i, width, last=i == last))
            width = backbone.channels_at(i)
        self.mid = Middle(width, backbone)
        self.norm_out = normalization(width, backbone.norm_groups)
        self.conv_out = nn.Conv2d(width, backbone.latent_channels, 3, padding=1)

    def forward(self, frames: Float[Tensor, "frames rgb height width"]) -> Float[Tensor, "frames latent rows columns"]:
        """Map frames in [-1, 1] to latents, `downsampling` pixels to a row or column."""
        h = self.conv_in(frames)
        for level in self.down:
            h = level(h)
        return self.conv_out(F.silu(self.norm_out(self.mid(h))))


class DownLevel(Level):
    """The blocks of one resolution, then half of it, except at the last level."""

    def __init__(self, backbone: Backbone, level: int, in_channels: int, last: bool) -> None:
        super().__init__(backbone, level, in_channels, backbone.residual_blocks)
        self.downsample = nn.Identity() if last else Downsample(backbone.channels_at(level))

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n out h2 w2"]:
        """Run the blocks, then lower the resolution."""
        return self.downsample(super().forward(x))
