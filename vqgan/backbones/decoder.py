"""Latents back to frames."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vqgan.backbones.backbone import Backbone
from vqgan.backbones.blocks import Level, Middle, Upsample, normalization


class Decoder(nn.Module):
    """The middle, then levels of rising resolution (reference: `Decoder` of taming-transformers' `model.py`).

    `up[0]` is the full resolution, as in the reference: the list is run from its end. The output has no
    squashing; frames lie near [-1, 1] because the loss asks for it.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        last = len(backbone.channel_multipliers) - 1
        width = backbone.channels_at(last)
        self.conv_in = nn.Conv2d(backbone.latent_channels, width, 3, padding=1)
        self.mid = Middle(width, backbone)
        rising = []
        for i in reversed(range(last + 1)):
            rising.append(UpLevel(backbone, i, width))
            width = backbone.channels_at(i)
        self.up = nn.ModuleList(reversed(rising))
        self.norm_out = normalization(width, backbone.norm_groups)
        self.conv_out = nn.Conv2d(width, backbone.image_channels, 3, padding=1)

    def compile(self) -> None:
        """Compile all but the last layer, whose gradient the adaptive weight needs by itself."""
        self.features = torch.compile(self.features)  # type: ignore[method-assign]

    def forward(self, latents: Float[Tensor, "frames latent rows columns"]) -> Float[Tensor, "frames rgb height width"]:
        """Map latents to frames, nominally in [-1, 1]."""
        return self.conv_out(self.features(latents))

    def features(self, latents: Float[Tensor, "frames latent rows columns"]) -> Float[Tensor, "frames c height width"]:
        """All but the last layer, at which the adaptive adversarial weight is measured."""
        h = self.mid(self.conv_in(latents))
        for level in reversed(self.up):
            h = level(h)
        return F.silu(self.norm_out(h))


class UpLevel(Level):
    """The blocks of one resolution, then twice that, except at the full resolution."""

    def __init__(self, backbone: Backbone, level: int, in_channels: int) -> None:
        super().__init__(backbone, level, in_channels, backbone.residual_blocks + 1)
        self.upsample = Upsample(backbone.channels_at(level)) if level > 0 else nn.Identity()

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n out h2 w2"]:
        """Run the blocks, then raise the resolution."""
        return self.upsample(super().forward(x))
