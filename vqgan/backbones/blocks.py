"""What encoder and decoder are made of: residual, attention and resampling blocks.

Architecture and parameter names follow taming-transformers (`taming/modules/diffusionmodules/model.py`), so
that its weights fit without a map.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vqgan.backbones.sizes import Sizes
from vqgan.layers import Recomputes


def normalization(channels: int, groups: int) -> nn.GroupNorm:
    """Group normalisation as every block uses it."""
    return nn.GroupNorm(groups, channels, eps=1e-6)


class ResidualBlock(nn.Module):
    """norm → swish → conv, twice, plus the input (through a 1×1 convolution where the width changes)."""

    def __init__(self, in_channels: int, out_channels: int, sizes: Sizes) -> None:
        super().__init__()
        self.norm1 = normalization(in_channels, sizes.norm_groups)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = normalization(out_channels, sizes.norm_groups)
        self.dropout = nn.Dropout(sizes.dropout)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        same = in_channels == out_channels
        self.nin_shortcut = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n out h w"]:
        """Add the block's correction to `x`."""
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))
        return self.nin_shortcut(x) + h


class AttentionBlock(nn.Module):
    """One head of self-attention over all positions of a frame, plus the input."""

    def __init__(self, channels: int, sizes: Sizes) -> None:
        super().__init__()
        self.norm = normalization(channels, sizes.norm_groups)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Add to each position what it attends to."""
        h = self.norm(x)
        q, k, v = (rearrange(project(h), "n c h w -> n 1 (h w) c") for project in (self.q, self.k, self.v))
        attended = F.scaled_dot_product_attention(q, k, v)
        return x + self.proj_out(rearrange(attended, "n 1 (h w) c -> n c h w", h=x.shape[2]))


class Downsample(nn.Module):
    """Halve both sides with a strided convolution; the padding is on the right and below only."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h2 w2"]:
        """Return `x` at half its sides."""
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Double both sides by repetition, then convolve.

    Done as one transposed convolution, which adds up the taps that would fall on copies of the same value: four
    ninths of the multiplications for the same sums.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h2 w2"]:
        """Return `x` at twice its sides."""
        taps = self.conv.weight.flip(2, 3).transpose(0, 1)
        spread = torch.stack([F.pad(taps, (left, 1 - left, top, 1 - top)) for top in (0, 1) for left in (0, 1)]).sum(0)
        return F.conv_transpose2d(x, spread, self.conv.bias, stride=2, padding=1)


class Level(Recomputes):
    """All residual blocks of one resolution, each followed by attention where it is asked for."""

    def __init__(self, sizes: Sizes, level: int, in_channels: int, blocks: int) -> None:
        super().__init__()
        out_channels = sizes.channels_at(level)
        attention = sizes.resolution_at(level) in sizes.attention_resolutions
        widths = [in_channels] + [out_channels] * blocks
        self.block = nn.ModuleList(ResidualBlock(a, b, sizes) for a, b in itertools.pairwise(widths))
        self.attn = nn.ModuleList(AttentionBlock(out_channels, sizes) for _ in range(blocks) if attention)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n out h w"]:
        """Run the blocks in order."""
        for i in range(len(self.block)):
            x = self.maybe_recomputed(self.step, i, x)
        return x

    def step(self, i: int, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n out h w"]:
        """Block `i`, and the attention after it."""
        x = self.block[i](x)
        return self.attn[i](x) if self.attn else x


class Middle(nn.Module):
    """The lowest resolution: a residual block, attention (always) and another residual block."""

    def __init__(self, channels: int, sizes: Sizes) -> None:
        super().__init__()
        self.block_1 = ResidualBlock(channels, channels, sizes)
        self.attn_1 = AttentionBlock(channels, sizes)
        self.block_2 = ResidualBlock(channels, channels, sizes)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Run the three blocks."""
        return self.block_2(self.attn_1(self.block_1(x)))
