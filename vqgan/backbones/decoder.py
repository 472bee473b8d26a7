"""Latents back to frames."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vqgan.backbones.backbone import PictureDecoder
from vqgan.backbones.blocks import Level, Middle, Upsample, normalization
from vqgan.backbones.sizes import Sizes


class ConvolutionalDecoder(PictureDecoder):
    """The middle, then levels of rising resolution (reference: `Decoder` of taming-transformers' `model.py`).

    `up[0]` is the full resolution, as in the reference: the list is run from its end. The output has no
    squashing; frames lie near [-1, 1] because the loss asks for it.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        last = len(sizes.channel_multipliers) - 1
        width = sizes.channels_at(last)
        self.conv_in = nn.Conv2d(sizes.latent_channels, width, 3, padding=1)
        self.mid = Middle(width, sizes)
        rising = []
        for i in reversed(range(last + 1)):
            rising.append(UpLevel(sizes, i, width))
            width = sizes.channels_at(i)
        self.up = nn.ModuleList(reversed(rising))
        self.norm_out = normalization(width, sizes.norm_groups)
        self.conv_out = nn.Conv2d(width, sizes.image_channels, 3, padding=1)

    def features(self, latents: Float[Tensor, "frames latent rows columns"]) -> Float[Tensor, "frames c h w"]:
        """All of a picture but the last layer."""
        h = self.mid(self.conv_in(latents))
        for level in reversed(self.up):
            h = level(h)
        return F.silu(self.norm_out(h))


class UpLevel(Level):
    """The blocks of one resolution, then twice that, except at the full resolution."""

    def __init__(self, sizes: Sizes, level: int, in_channels: int) -> None:
        super().__init__(sizes, level, in_channels, sizes.residual_blocks + 1)
        self.upsample = Upsample(sizes.channels_at(level)) if level > 0 else nn.Identity()

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n out h2 w2"]:
        """Run the blocks, then raise the resolution."""
        return self.upsample(super().forward(x))
