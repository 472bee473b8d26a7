"""VidTok 1.1's causal network of clips: blocks of space and of time in turns.

Parameter names follow VidTok (`vidtok/modules/model_3dcausal_v1_1.py`), so that its weights fit without a map. Inside,
clips are (batch, c, time, h, w), as convolutions over time want them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vqgan.backbones.backbone import Backbone, Decoder, Downsampling, PictureDecoder
from vqgan.backbones.blocks import Downsample, Upsample
from vqgan.backbones.sizes import MOST_BLOCKS, MOST_LEVELS
from vqgan.errors import check
from vqgan.layers import Recomputes

Interpolation = Literal["nearest", "trilinear"]
EPS = 1e-6  # of norms
MIXED = 2.0  # of what is only resampled in time the share sigmoid(2), at first


@dataclass(frozen=True, kw_only=True)
class VidTok(Backbone):
    """Encoder and decoder of VidTok (Tang et al. 2024, arXiv:2412.13061) in its causal form, version 1.1.

    Each residual block of pictures is followed by one along time, whose convolutions repeat the first frame before the
    beginning. A clip of 1 + k·n frames has 1 + n times of codes, k being 2 to the number of levels that halve time: its
    first frame is repeated in front until k divides their number, and of what the decoder gives so many are left out.
    The encoder and convolutions look back only; trilinear interpolation looks one frame ahead.

    Args:
        resolution: nominal side of a frame in pixels. Other multiples of the downsampling run as well.
        image_channels: 3 for rgb.
        channels: width of the first level.
        channel_multipliers: width of each level as a multiple of `channels`; each level but the last halves the side.
        residual_blocks: per level in the encoder, of space and of time; the decoder has one more.
        halve_time_after: levels of the encoder, 0 being the full resolution, after which time is halved.
        double_time_after: levels of the decoder after which it is doubled; as many, and not the 0th.
        interpolation: of time in the decoder; `nearest` repeats frames.
        latent_channels: channels between the encoder and the projection to the quantizer's dimension.
    """

    resolution: int
    image_channels: int
    channels: int
    channel_multipliers: Sequence[int]
    residual_blocks: int
    halve_time_after: Sequence[int]
    double_time_after: Sequence[int]
    interpolation: Interpolation
    latent_channels: int

    def __post_init__(self) -> None:
        check(self.image_channels > 0, "image_channels", self.image_channels, "positive")
        check(self.channels > 0, "channels", self.channels, "positive")
        levels = len(self.channel_multipliers)
        check(
            0 < levels <= MOST_LEVELS and all(m > 0 for m in self.channel_multipliers),
            "channel_multipliers", self.channel_multipliers[:20], f"at most {MOST_LEVELS} positive whole numbers",
        )  # fmt: skip
        fits = 0 < self.residual_blocks <= MOST_BLOCKS
        check(fits, "residual_blocks", self.residual_blocks, f"positive, at most {MOST_BLOCKS}")
        fits = len({*self.halve_time_after} & {*range(levels - 1)}) == len(self.halve_time_after)
        check(fits, "halve_time_after", self.halve_time_after, f"different levels in [0, {levels - 1})")
        fits = len({*self.double_time_after} & {*range(1, levels)}) == len(self.halve_time_after)
        fits = fits and len(self.double_time_after) == len(self.halve_time_after)
        expected = f"as many levels as in halve_time_after, different ones in [1, {levels})"
        check(fits, "double_time_after", self.double_time_after, expected)
        check(self.latent_channels > 0, "latent_channels", self.latent_channels, "positive")
        side = self.downsampling.height
        fits = self.resolution > 0 and self.resolution % side == 0
        check(fits, "resolution", self.resolution, f"a positive multiple of {side}")

    @property
    def downsampling(self) -> Downsampling:
        """Frames and pixels to a code."""
        side = 2 ** (len(self.channel_multipliers) - 1)
        return Downsampling(2 ** len(self.halve_time_after), side, side)

    @property
    def widths(self) -> list[int]:
        """Channels of each level, from the full resolution down."""
        return [self.channels * multiplier for multiplier in self.channel_multipliers]

    def encoder(self) -> nn.Module:
        """Frames to latents."""
        return VidTokEncoder(self)

    def decoder(self) -> Decoder:
        """Latents back to frames."""
        return VidTokDecoder(self)


class VidTokEncoder(Recomputes):
    """Levels of falling resolution, then the middle."""

    whole_clips = True  # are what the two networks take: the decoder looks ahead, so it cannot go on from a part

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


class Stage(nn.Module):
    """The blocks of space, or those of time, of one resolution, and what leads to the next."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        blocks: int,
        convolution: Callable[[int, int], nn.Module],
        *,
        downsample: nn.Module | None = None,
        upsample: nn.Module | None = None,
    ) -> None:
        super().__init__()
        widths = [in_channels] + [channels] * blocks
        self.block = nn.ModuleList(Block(a, b, convolution) for a, b in itertools.pairwise(widths))
        self.downsample, self.upsample = downsample or nn.Identity(), upsample or nn.Identity()


class Block(nn.Module):
    """norm → swish → convolution, twice, plus the input (through a 1×1 convolution where the width changes)."""

    def __init__(self, in_channels: int, channels: int, convolution: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        self.norm1, self.conv1 = ChannelNorm(in_channels), convolution(in_channels, channels)
        self.norm2, self.conv2 = ChannelNorm(channels), convolution(channels, channels)
        if isinstance(self.conv2, Time):  # which begins as nothing: clips as pictures side by side
            nn.init.zeros_(self.conv2.conv.weight)
            nn.init.zeros_(self.conv2.conv.bias)  # type: ignore[arg-type]
        self.nin_shortcut = nn.Identity() if in_channels == channels else Space(in_channels, channels, 1)

    def forward(self, x: Float[Tensor, "n c t h w"]) -> Float[Tensor, "n out t h w"]:
        """Add the block's correction to `x`."""
        h = self.conv1(F.silu(self.norm1(x)))
        return self.nin_shortcut(x) + self.conv2(F.silu(self.norm2(h)))


class Middle(nn.Module):
    """The lowest resolution: a block of space and time at once, attention within each frame, and another such block."""

    def __init__(self, channels: int) -> None:
        super().__init__()

        def both(a: int, b: int) -> CausalConv:
            return CausalConv(a, b, 3)

        self.block_1, self.attn_1 = Block(channels, channels, both), Attention(channels)
        self.block_2 = Block(channels, channels, both)

    def forward(self, x: Float[Tensor, "n c t h w"]) -> Float[Tensor, "n c t h w"]:
        """Run the three blocks."""
        return self.block_2(self.attn_1(self.block_1(x)))


class Attention(nn.Module):
    """One head of self-attention over all positions of a frame, plus the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.q, self.k, self.v, self.proj_out = (CausalConv(channels, channels, 1) for _ in range(4))

    def forward(self, x: Float[Tensor, "n c t h w"]) -> Float[Tensor, "n c t h w"]:
        """Add to each position what it attends to."""
        h = self.norm(x)
        q, k, v = (rearrange(project(h), "n c t h w -> n t (h w) c") for project in (self.q, self.k, self.v))
        attended = F.scaled_dot_product_attention(q, k, v)
        return x + self.proj_out(rearrange(attended, "n t (h w) c -> n c t h w", h=x.shape[3]))


class HalveTime(nn.Module):
    """Half the frames: α · the mean of three, every second one + (1 - α) · a convolution, α = sigmoid(mix_factor)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = CausalConv(channels, channels, 3, stride=2)
        self.mix_factor = nn.Parameter(torch.tensor([MIXED]))

    def forward(self, x: Float[Tensor, "n c t h w"]) -> Float[Tensor, "n c t2 h w"]:
        """Return `x` at half its frames, of which there is an even number."""
        means = F.avg_pool3d(starting_with(x, 1), (3, 1, 1), (2, 1, 1))
        return torch.lerp(self.conv(x), means, torch.sigmoid(self.mix_factor))


class DoubleTime(nn.Module):
    """Twice the frames: α · interpolated ones + (1 - α) · their convolution, α = sigmoid(mix_factor).

    Those of the first time of codes, `alone` frames, are interpolated by themselves.
    """

    def __init__(self, channels: int, interpolation: Interpolation, alone: int) -> None:
        super().__init__()
        self.interpolation, self.alone = interpolation, alone
        self.conv = CausalConv(channels, channels, 3)
        self.mix_factor = nn.Parameter(torch.tensor([MIXED]))

    def forward(self, x: Float[Tensor, "n c t h w"]) -> Float[Tensor, "n c t2 h w"]:
        """Return `x` at twice its frames."""
        parts = [x[:, :, : self.alone], x[:, :, self.alone :]]
        doubled = [self._doubled(part) for part in parts if part.shape[2]]
        x = torch.cat(doubled, 2)
        return torch.lerp(self.conv(x), x, torch.sigmoid(self.mix_factor))

    def _doubled(self, x: Tensor) -> Tensor:
        return F.interpolate(x.float(), scale_factor=(2.0, 1.0, 1.0), mode=self.interpolation).to(x.dtype)


class CausalConv(nn.Module):
    """A convolution over time and space, or of single positions: frames before the first are the first."""

    def __init__(self, in_channels: int, channels: int, side: int, stride: int = 1) -> None:
        super().__init__()
        self.before = side - stride
        self.conv = nn.Conv3d(in_channels, channels, side, stride=(stride, 1, 1), padding=(0, side // 2, side // 2))

    def forward(self, x: Float[Tensor, "n c t h w"]) -> Float[Tensor, "n out t2 h w"]:
        """Convolve."""
        return self.conv(starting_with(x, self.before))


class Time(nn.Module):
    """A convolution of each position over its frame and the two before."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(in_channels, channels, 3)

    def forward(self, x: Float[Tensor, "n c t h w"]) -> Float[Tensor, "n out t h w"]:
        """Convolve, all positions at once."""
        return F.conv3d(starting_with(x, 2), self.conv.weight[..., None, None], self.conv.bias)


class Space(nn.Conv2d):
    """A convolution of each frame."""

    def __init__(self, in_channels: int, channels: int, side: int = 3) -> None:
        super().__init__(in_channels, channels, side, padding=side // 2)

    def forward(self, x: Float[Tensor, "n c t h w"]) -> Float[Tensor, "n out t h w"]:
        """Convolve, frame by frame."""
        return by_frame(super().forward, x)


class ChannelNorm(nn.Module):
    """Layer normalisation of the channels of each position of each frame."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=EPS)

    def forward(self, x: Float[Tensor, "n c t h w"]) -> Float[Tensor, "n c t h w"]:
        """Normalise."""
        return self.norm(x.movedim(1, -1)).movedim(-1, 1)


def in_turn(space: nn.Module, time: nn.Module, x: Float[Tensor, "n c t h w"]) -> Float[Tensor, "n out t h w"]:
    """A block of space, then one of time."""
    return time(space(x))


def starting_with(x: Float[Tensor, "n c t h w"], repeated: int) -> Float[Tensor, "n c t2 h w"]:
    """Clips with their first frame so many times more."""
    return torch.cat([x[:, :, :1].expand(-1, -1, repeated, -1, -1), x], 2) if repeated else x


def by_frame(function: Callable[[Tensor], Tensor], x: Float[Tensor, "n c t h w"]) -> Float[Tensor, "n out t h2 w2"]:
    """A function of pictures on each frame."""
    n, _, t = x.shape[:3]
    return function(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (n, t)).transpose(1, 2)
