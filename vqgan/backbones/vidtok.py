"""VidTok 1.1's causal network of clips: blocks of space and of time in turns.

Parameter names follow VidTok (`vidtok/modules/model_3dcausal_v1_1.py`), so that its weights fit without a map.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vqgan.backbones.backbone import Backbone, Decoder, Downsampling, PictureDecoder
from vqgan.backbones.blocks import Downsample, Upsample
from vqgan.backbones.sizes import Levels
from vqgan.backbones.space_time import (
    CausalConv,
    ChannelNorm,
    DoubleTime,
    HalveTime,
    Interpolation,
    Middle,
    Space,
    Stage,
    Time,
    by_frame,
    in_turn,
    starting_with,
)
from vqgan.errors import check
from vqgan.layers import Recomputes


@dataclass(frozen=True, kw_only=True)
class VidTok(Levels, Backbone):
    """Encoder and decoder of VidTok (Tang et al. 2024, arXiv:2412.13061) in its causal form, version 1.1.

    Each residual block of pictures is followed by one along time, whose convolutions repeat the first frame before the
    beginning. A clip of 1 + k·n frames has 1 + n times of codes, k being 2 to the number of levels that halve time: its
    first frame is repeated in front until k divides their number, and of what the decoder gives so many are left out.
    The encoder and convolutions look back only; trilinear interpolation looks one frame ahead.

    Args:
        residual_blocks: per level in the encoder, of space and of time; the decoder has one more.
        halve_time_after: levels of the encoder, 0 being the full resolution, after which time is halved.
        double_time_after: levels of the decoder after which it is doubled; as many, and not the 0th.
        interpolation: of time in the decoder; `nearest` repeats frames.
    """

    halve_time_after: Sequence[int]
    double_time_after: Sequence[int]
    interpolation: Interpolation

    def __post_init__(self) -> None:
        super().__post_init__()
        levels = len(self.channel_multipliers)
        fits = len({*self.halve_time_after} & {*range(levels - 1)}) == len(self.halve_time_after)
        check(fits, "halve_time_after", self.halve_time_after, f"different levels in [0, {levels - 1})")
        fits = len({*self.double_time_after} & {*range(1, levels)}) == len(self.halve_time_after)
        fits = fits and len(self.double_time_after) == len(self.halve_time_after)
        expected = f"as many levels as in halve_time_after, different ones in [1, {levels})"
        check(fits, "double_time_after", self.double_time_after, expected)

    @property
    def downsampling(self) -> Downsampling:
        """Frames and pixels to a code."""
        return super().downsampling._replace(time=2 ** len(self.halve_time_after))

    def encoder(self) -> nn.Module:
        """Frames to latents."""
        return VidTokEncoder(self)

    def decoder(self) -> Decoder:
        """Latents back to frames."""
        return VidTokDecoder(self)


class VidTokEncoder(Recomputes):
    """Levels of falling resolution, then the middle.

    It takes whole clips, and is none that `Remembers`: the decoder looks ahead, so it cannot go on from a part.
    """

    def __init__(self, sizes: VidTok) -> None:
        super().__init__()
        self.step = sizes.downsampling.time
        self.conv_in = CausalConv(sizes.image_channels, sizes.channels, 3)
        widths = [sizes.channels, *sizes.widths]
        last = len(sizes.widths) - 1
        self.down, self.down_temporal = nn.ModuleList(), nn.ModuleList()
        for i, (a, b) in enumerate(itertools.pairwise(widths)):
            self.down.append(Stage(a, b, sizes.residual_blocks, Space, downsample=Downsample(b) if i < last else None))
            halved = HalveTime(b) if i in sizes.halve_time_after else None
            self.down_temporal.append(Stage(b, b, sizes.residual_blocks, Time, downsample=halved))
        self.mid = Middle(widths[-1])
        self.norm_out = ChannelNorm(widths[-1])
        self.conv_out = CausalConv(widths[-1], sizes.latent_channels, 3)

    def forward(
        self, frames: Float[Tensor, "batch time rgb height width"]
    ) -> Float[Tensor, "batch time2 latent rows columns"]:
        """Map frames in [-1, 1] to latents: of 1 + k·n frames, or of k·n, 1 + n, or n, times."""
        x = frames.transpose(1, 2)
        x = self.conv_in(starting_with(x, -x.shape[2] % self.step))
        for space, time in zip(cast(list[Stage], self.down), cast(list[Stage], self.down_temporal)):
            for blocks in zip(space.block, time.block):
                x = self.maybe_recomputed(in_turn, *blocks, x)
            x = time.downsample(by_frame(space.downsample, x))
        return self.conv_out(F.silu(self.norm_out(self.mid(x)))).transpose(1, 2)


class VidTokDecoder(PictureDecoder, Recomputes):
    """The middle, then levels of rising resolution, of which `up[0]` is the full one."""

    conv_out: CausalConv  # type: ignore[assignment]

    def __init__(self, sizes: VidTok) -> None:
        super().__init__()
        self.step = sizes.downsampling.time
        widths = [*sizes.widths, sizes.widths[-1]]
        self.conv_in = CausalConv(sizes.latent_channels, widths[-1], 3)
        self.mid = Middle(widths[-1])
        self.up, self.up_temporal = nn.ModuleList(), nn.ModuleList()
        rate = 1  # frames to a time of codes where time has been doubled so often
        rising = []
        for i in reversed(range(len(sizes.widths))):
            space = Stage(widths[i + 1], widths[i], sizes.residual_blocks + 1, Space,
                          upsample=Upsample(widths[i]) if i > 0 else None)  # fmt: skip
            doubled = DoubleTime(widths[i], sizes.interpolation, rate) if i in sizes.double_time_after else None
            rate *= 1 if doubled is None else 2
            rising.append((space, Stage(widths[i], widths[i], sizes.residual_blocks + 1, Time, upsample=doubled)))
        self.up.extend(space for space, _ in reversed(rising))
        self.up_temporal.extend(time for _, time in reversed(rising))
        self.norm_out = ChannelNorm(widths[0])
        self.conv_out = CausalConv(widths[0], sizes.image_channels, 3)

    @property
    def last_layer(self) -> Tensor:
        """The weight at which the adaptive adversarial weight is measured."""
        return self.conv_out.conv.weight

    def forward(
        self, latents: Float[Tensor, "batch time latent rows columns"]
    ) -> Float[Tensor, "batch time2 rgb height width"]:
        """Map 1 + n latents to 1 + k·n frames, nominally in [-1, 1]."""
        features = self.compiled or self.features
        return self.conv_out(features(latents)).transpose(1, 2)[:, self.step - 1 :]

    def features(self, latents: Float[Tensor, "batch time latent rows columns"]) -> Float[Tensor, "batch c time2 h w"]:
        """All of the frames but the last layer."""
        x = self.mid(self.conv_in(latents.transpose(1, 2)))
        levels = [*zip(cast(list[Stage], self.up), cast(list[Stage], self.up_temporal))]
        for space, time in reversed(levels):
            for blocks in zip(space.block, time.block):
                x = self.maybe_recomputed(in_turn, *blocks, x)
            x = time.upsample(by_frame(space.upsample, x))
        return F.silu(self.norm_out(x))
