"""Blocks of space and blocks of time, in turns: what VidTok's network is made of.

Clips are (batch, c, time, h, w), as convolutions over time want them. What works along time repeats the first frame
before the beginning, and looks back only, but for trilinear interpolation.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

Interpolation = Literal["nearest", "trilinear"]
EPS = 1e-6  # of norms
MIXED = 2.0  # of what is only resampled in time the share sigmoid(2), at first


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
