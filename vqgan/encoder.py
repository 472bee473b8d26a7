"""Frames to latents."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vqgan.blocks import Backbone, Downsample, Level, Middle, normalization


class Encoder(nn.Module):
    """Levels of falling resolution, then the middle (reference: `Encoder` of taming-transformers' `model.py`)."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(backbone.image_channels, backbone.channels, 3, padding=1)
        self.down = nn.ModuleList()
        width, levels = backbone.channels, len(backbone.channel_multipliers)
        for i in range(levels):
            attention = backbone.resolution_at(i) in backbone.attention_resolutions
            level = Level(width, backbone.channels_at(i), backbone.residual_blocks, attention, backbone)
            width = backbone.channels_at(i)
            if i < levels - 1:
                level.downsample = Downsample(width)
            self.down.append(level)
        self.mid = Middle(width, backbone)
        self.norm_out = normalization(width, backbone.norm_groups)
        self.conv_out = nn.Conv2d(width, backbone.latent_channels, 3, padding=1)

    def forward(self, frames: Float[Tensor, "frames rgb height width"]) -> Float[Tensor, "frames latent rows columns"]:
        """Map frames in [-1, 1] to latents, `downsampling` pixels to a row or column."""
        h = self.conv_in(frames)
        for level in self.down:
            h = level(h)
            if hasattr(level, "downsample"):
                h = level.downsample(h)
        latents: Tensor = self.conv_out(F.silu(self.norm_out(self.mid(h))))
        return latents
