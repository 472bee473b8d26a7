"""The network of Open-MAGVIT2's pictures: no attention, and a decoder whose scales come from all codes of a frame.

Parameter names follow SEED-Voken (`Open_MAGVIT2/modules/diffusionmodules/improved_model.py`), so that its weights fit
without a map.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vqgan.backbones.backbone import Backbone, Decoder, PictureDecoder
from vqgan.backbones.blocks import normalization
from vqgan.backbones.sizes import Levels, check_norm_groups
from vqgan.frames import per_frame
from vqgan.layers import Recomputes

EPS = 1e-6  # of norms, and below the root of a deviation


@dataclass(frozen=True, kw_only=True)
class OpenMAGVIT2(Levels, Backbone):
    """Encoder and decoder of Open-MAGVIT2 (Luo et al. 2024, arXiv:2409.04410), frame by frame.

    Beside VQGAN's it has no attention and no dropout, convolutions of blocks without bias, strided ones that pad both
    sides, and depth to space instead of repetition. Before each level of the decoder features are normalised and then
    scaled and shifted by linear maps of what the codes are over the whole frame (see `AdaptiveNorm`).

    Args:
        norm_groups: of every group normalisation; 32 as published.
    """

    norm_groups: int

    def __post_init__(self) -> None:
        super().__post_init__()
        check_norm_groups(self.norm_groups, self.channels)

    def encoder(self) -> nn.Module:
        """Frames to latents."""
        return AdaptiveEncoder(self)

    def decoder(self) -> Decoder:
        """Latents back to frames."""
        return AdaptiveDecoder(self)


class AdaptiveEncoder(nn.Module):
    """Levels of falling resolution, then the middle."""

    def __init__(self, sizes: OpenMAGVIT2) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(sizes.image_channels, sizes.channels, 3, padding=1, bias=False)
        widths = [sizes.channels, *sizes.widths]
        halved = [nn.Conv2d(width, width, 3, stride=2, padding=1) for width in widths[1:-1]]
        self.down = nn.ModuleList(
            Level(a, b, sizes, downsample=after)
            for (a, b), after in zip(itertools.pairwise(widths), [*halved, nn.Identity()])
        )
        self.mid_block = blocks(widths[-1], widths[-1], sizes)
        self.norm_out = normalization(widths[-1], sizes.norm_groups)
        self.conv_out = nn.Conv2d(widths[-1], sizes.latent_channels, 1)

    def forward(
        self, frames: Float[Tensor, "batch time rgb height width"]
    ) -> Float[Tensor, "batch time latent rows columns"]:
        """Map frames in [-1, 1] to latents, `downsampling` pixels to a row or column."""
        return per_frame(self.pictures, frames)

    def pictures(self, frames: Float[Tensor, "frames rgb h w"]) -> Float[Tensor, "frames latent rows columns"]:
        """The same of pictures."""
        h = self.conv_in(frames)
        for level in self.down:
            h = level(h)
        for block in self.mid_block:
            h = block(h)
        return self.conv_out(F.silu(self.norm_out(h)))


class AdaptiveDecoder(PictureDecoder):
    """The middle, then levels of rising resolution, of which `up[0]` is the full one, as `adaptive[0]` is its norm."""

    def __init__(self, sizes: OpenMAGVIT2) -> None:
        super().__init__()
        widths = [*sizes.widths, sizes.widths[-1]]
        self.conv_in = nn.Conv2d(sizes.latent_channels, widths[-1], 3, padding=1)
        self.mid_block = blocks(widths[-1], widths[-1], sizes)
        pairs = list(itertools.pairwise(widths))
        doubled = [DepthToSpace(width) for width in widths[1:-1]]
        self.up = nn.ModuleList(
            Level(below, own, sizes, upsample=after) for (own, below), after in zip(pairs, [nn.Identity(), *doubled])
        )
        self.adaptive = nn.ModuleList(AdaptiveNorm(sizes.latent_channels, below, sizes) for _, below in pairs)
        self.norm_out = normalization(widths[0], sizes.norm_groups)
        self.conv_out = nn.Conv2d(widths[0], sizes.image_channels, 3, padding=1)

    def features(self, latents: Float[Tensor, "frames latent rows columns"]) -> Float[Tensor, "frames c h w"]:
        """All of a picture but the last layer."""
        h = self.conv_in(latents)
        for block in self.mid_block:
            h = block(h)
        for level, norm in zip(reversed(self.up), reversed(self.adaptive)):
            h = level(norm(h, latents))
        return F.silu(self.norm_out(h))


class Level(Recomputes):
    """The residual blocks of one resolution, and what leads to the next."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        sizes: OpenMAGVIT2,
        *,
        downsample: nn.Module | None = None,
        upsample: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.block = blocks(in_channels, channels, sizes)
        self.downsample, self.upsample = downsample or nn.Identity(), upsample or nn.Identity()

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n out h2 w2"]:
        """Run the blocks in order, then change the resolution."""
        for block in self.block:
            x = self.maybe_recomputed(block, x)
        return self.upsample(self.downsample(x))


class Block(nn.Module):
    """norm → swish → conv, twice, without bias, plus the input (through a 1×1 convolution where the width changes)."""

    def __init__(self, in_channels: int, channels: int, norm_groups: int) -> None:
        super().__init__()
        self.norm1 = normalization(in_channels, norm_groups)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        self.norm2 = normalization(channels, norm_groups)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        same = in_channels == channels
        self.nin_shortcut = nn.Identity() if same else nn.Conv2d(in_channels, channels, 1, bias=False)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n out h w"]:
        """Add the block's correction to `x`."""
        h = self.conv1(F.silu(self.norm1(x)))
        return self.nin_shortcut(x) + self.conv2(F.silu(self.norm2(h)))


class DepthToSpace(nn.Module):
    """Twice the sides: out[c, 2y + i, 2x + j] = conv(x)[(2i + j) · C + c, y, x]; of pixel shuffle c counts first."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 4 * channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h2 w2"]:
        """Return `x` at twice its sides."""
        parts = self.conv1(x).unflatten(1, (4, -1)).transpose(1, 2).flatten(1, 2)
        return F.pixel_shuffle(parts, 2)


class AdaptiveNorm(nn.Module):
    """gamma(σ) · norm(x) + beta(μ), of the mean μ and unbiased deviation σ of each latent number over the frame."""

    def __init__(self, latent_channels: int, channels: int, sizes: OpenMAGVIT2) -> None:
        super().__init__()
        self.groups = sizes.norm_groups
        self.gamma = nn.Linear(latent_channels, channels)
        self.beta = nn.Linear(latent_channels, channels)

    def forward(
        self, x: Float[Tensor, "n c h w"], latents: Float[Tensor, "n latent rows columns"]
    ) -> Float[Tensor, "n c h w"]:
        """Normalise, then scale and shift by what the latents are over the frame."""
        style = latents.flatten(2).to(x.dtype)
        # Of a single position the unbiased deviation is not a number; here it is 0.
        scale = self.gamma(torch.sqrt(style.var(2, correction=min(1, style.shape[2] - 1)) + EPS))
        return (
            scale[..., None, None] * F.group_norm(x, self.groups, eps=EPS) + self.beta(style.mean(2))[..., None, None]
        )


def blocks(in_channels: int, channels: int, sizes: OpenMAGVIT2) -> nn.ModuleList:
    """So many residual blocks, of which the first changes the width."""
    widths = [in_channels] + [channels] * sizes.residual_blocks
    return nn.ModuleList(Block(a, b, sizes.norm_groups) for a, b in itertools.pairwise(widths))
