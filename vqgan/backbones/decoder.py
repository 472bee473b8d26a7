"""Latents back to frames."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vqgan.backbones.backbone import Decoder
from vqgan.backbones.blocks import Level, Middle, Upsample, normalization
from vqgan.backbones.sizes import Sizes
from vqgan.frames import per_frame


class ConvolutionalDecoder(Decoder):
    """The middle, then levels of rising resolution (reference: `Decoder` of taming-transformers' `model.py`).

    `up[0]` is the full resolution, as in the reference: the list is run from its end. The output has no
    squashing; frames lie near [-1, 1] because the loss asks for it.
    """

    compiled: Callable[[Tensor], Tensor] | None = None

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

    @property
    def last_layer(self) -> Tensor:
        """The weight at which the adaptive adversarial weight is measured."""
        return self.conv_out.weight

    def compile(self) -> None:
        """Compile all but the last layer, whose gradient the adaptive weight needs by itself."""
        self.compiled = torch.compile(self.features)

    def __getstate__(self) -> dict[str, Any]:
        # What is compiled has this decoder's weights: a copy, as the average of the weights, would go on using them.
        return {name: value for name, value in super().__getstate__().items() if name != "compiled"}

    def forward(
        self, latents: Float[Tensor, "batch time latent rows columns"]
    ) -> Float[Tensor, "batch time rgb height width"]:
        """Map latents to frames, nominally in [-1, 1]."""
        features = self.compiled or self.features
        return per_frame(lambda pictures: self.conv_out(features(pictures)), latents)

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
