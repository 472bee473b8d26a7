"""Latents back to frames."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vqgan.blocks import Backbone, Level, Middle, Upsample, normalization


class Decoder(nn.Module):
    """The middle, then levels of rising resolution (reference: `Decoder` of taming-transformers' `model.py`).

    `up[0]` is the full resolution, as in the reference: the list is run from its end. The output has no
    squashing; frames lie near [-1, 1] because the loss asks for it.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        levels = len(backbone.channel_multipliers)
        width = backbone.channels_at(levels - 1)
        self.conv_in = nn.Conv2d(backbone.latent_channels, width, 3, padding=1)
        self.mid = Middle(width, backbone)
        rising: list[Level] = []
        for i in reversed(range(levels)):
            attention = backbone.resolution_at(i) in backbone.attention_resolutions
            level = Level(width, backbone.channels_at(i), backbone.residual_blocks + 1, attention, backbone)
            width = backbone.channels_at(i)
            if i > 0:
                level.upsample = Upsample(width)
            rising.append(level)
        self.up = nn.ModuleList(reversed(rising))
        self.norm_out = normalization(width, backbone.norm_groups)
        self.conv_out = nn.Conv2d(width, backbone.image_channels, 3, padding=1)

    def forward(self, latents: Float[Tensor, "frames latent rows columns"]) -> Float[Tensor, "frames rgb height width"]:
        """Map latents to frames, nominally in [-1, 1]."""
        frames: Tensor = self.conv_out(self.features(latents))
        return frames

    def features(self, latents: Float[Tensor, "frames latent rows columns"]) -> Float[Tensor, "frames c height width"]:
        """All but the last layer, at which the adaptive adversarial weight is measured."""
        h = self.mid(self.conv_in(latents))
        for level in reversed(self.up):
            h = level(h)
            if hasattr(level, "upsample"):
                h = level.upsample(h)
        return F.silu(self.norm_out(h))
