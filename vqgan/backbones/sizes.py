"""The sizes that a convolutional encoder and its decoder share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vqgan.backbones.backbone import Downsampling
from vqgan.errors import check

MOST_LEVELS, MOST_BLOCKS = 12, 64  # beyond any use; a description from elsewhere must not ask for millions


@dataclass(frozen=True, kw_only=True)
class Levels:
    """Levels of falling resolution: what all networks of that kind have.

    Args:
        resolution: nominal side of a frame in pixels. Other sides that are multiples of `downsampling` run as well.
        image_channels: 3 for rgb.
        channels: width of the first level.
        channel_multipliers: width of each level as a multiple of `channels`; each level but the last halves the side.
        residual_blocks: per level.
        latent_channels: channels between the encoder and the 1×1 convolution to the dimension of the quantizer
            (`z_channels`).
    """

    resolution: int
    image_channels: int
    channels: int
    channel_multipliers: Sequence[int]
    residual_blocks: int
    latent_channels: int

    def __post_init__(self) -> None:
        for name in ("image_channels", "channels", "latent_channels"):
            check(getattr(self, name) > 0, name, getattr(self, name), "positive")
        check(
            0 < len(self.channel_multipliers) <= MOST_LEVELS and all(m > 0 for m in self.channel_multipliers),
            "channel_multipliers", self.channel_multipliers[:20], f"at most {MOST_LEVELS} positive whole numbers",
        )  # fmt: skip
        fits = 0 < self.residual_blocks <= MOST_BLOCKS
        check(fits, "residual_blocks", self.residual_blocks, f"positive, at most {MOST_BLOCKS}")
        side = self.downsampling.height
        fits = self.resolution > 0 and self.resolution % side == 0
        check(fits, "resolution", self.resolution, f"a positive multiple of {side}")

    @property
    def downsampling(self) -> Downsampling:
        """The f of f8 and f16 along each side; time is left as it is."""
        side = 2 ** (len(self.channel_multipliers) - 1)
        return Downsampling(1, side, side)

    @property
    def widths(self) -> list[int]:
        """Channels of each level, from the full resolution down."""
        return [self.channels * multiplier for multiplier in self.channel_multipliers]


def check_norm_groups(norm_groups: int, channels: int) -> None:
    """Raise `InvalidValueError` unless so many groups, each of as many channels, are what a width can be cut into."""
    check(norm_groups > 0, "norm_groups", norm_groups, "positive")
    check(channels % norm_groups == 0, "channels", channels, f"a multiple of norm_groups={norm_groups}")


@dataclass(frozen=True, kw_only=True)
class Sizes(Levels):
    """Those of the reference's network; `resolution` decides at which levels attention stands.

    Args:
        attention_resolutions: the sides, in nominal pixels, at which each residual block is followed by attention. The
            decoder has one block more than `residual_blocks` per level.
        norm_groups: of every group normalisation; 32 in the reference. As many groups as channels would erase each
            frame's colours, so narrow networks need fewer.
        dropout: in [0, 1), inside residual blocks.
    """

    attention_resolutions: Sequence[int]
    norm_groups: int
    dropout: float

    def __post_init__(self) -> None:
        super().__post_init__()
        check_norm_groups(self.norm_groups, self.channels)
        check(0 <= self.dropout < 1, "dropout", self.dropout, "in [0, 1)")

    def resolution_at(self, level: int) -> int:
        """Nominal side of level `level`, 0 being the full resolution."""
        return int(self.resolution // 2**level)

    def channels_at(self, level: int) -> int:
        """Width of level `level`."""
        return self.widths[level]
