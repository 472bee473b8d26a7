"""The sizes that a convolutional encoder and its decoder share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vqgan.backbones.backbone import Downsampling
from vqgan.errors import check

MOST_LEVELS, MOST_BLOCKS = 12, 64  # beyond any use; a description from elsewhere must not ask for millions


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The sizes that encoder and decoder share.

    Args:
        resolution: nominal side of a frame in pixels; decides at which levels attention stands. Other sides that are
            multiples of `downsampling` run as well.
        image_channels: 3 for rgb.
        channels: width of the first level, a multiple of `norm_groups`.
        channel_multipliers: width of each level as a multiple of `channels`; each level but the last halves the side.
        residual_blocks: per level in the encoder; the decoder has one more.
        attention_resolutions: the sides, in nominal pixels, at which each residual block is followed by attention.
        norm_groups: of every group normalisation; 32 in the reference. As many groups as channels would erase each
            frame's colours, so narrow networks need fewer.
        dropout: in [0, 1), inside residual blocks.
        latent_channels: channels between the encoder and the 1×1 convolution to the dimension of the quantizer
            (`z_channels`).
    """

    resolution: int
    image_channels: int
    channels: int
    channel_multipliers: Sequence[int]
    residual_blocks: int
    attention_resolutions: Sequence[int]
    norm_groups: int
    dropout: float
    latent_channels: int

    def __post_init__(self) -> None:
        check(self.image_channels > 0, "image_channels", self.image_channels, "positive")
        check(self.norm_groups > 0, "norm_groups", self.norm_groups, "positive")
        fits = self.channels > 0 and self.channels % self.norm_groups == 0
        check(fits, "channels", self.channels, f"a multiple of norm_groups={self.norm_groups}")
        check(
            0 < len(self.channel_multipliers) <= MOST_LEVELS and all(m > 0 for m in self.channel_multipliers),
            "channel_multipliers", self.channel_multipliers[:20], f"at most {MOST_LEVELS} positive whole numbers",
        )  # fmt: skip
        fits = 0 < self.residual_blocks <= MOST_BLOCKS
        check(fits, "residual_blocks", self.residual_blocks, f"positive, at most {MOST_BLOCKS}")
        check(0 <= self.dropout < 1, "dropout", self.dropout, "in [0, 1)")
        check(self.latent_channels > 0, "latent_channels", self.latent_channels, "positive")
        check(
            self.resolution > 0 and self.resolution % self.downsampling.height == 0,
            "resolution", self.resolution, f"a positive multiple of {self.downsampling.height}",
        )  # fmt: skip

    @property
    def downsampling(self) -> Downsampling:
        """The f of f8 and f16 along each side; time is left as it is."""
        side = 2 ** (len(self.channel_multipliers) - 1)
        return Downsampling(1, side, side)

    def resolution_at(self, level: int) -> int:
        """Nominal side of level `level`, 0 being the full resolution."""
        return int(self.resolution // 2**level)

    def channels_at(self, level: int) -> int:
        """Width of level `level`."""
        return self.channels * self.channel_multipliers[level]
