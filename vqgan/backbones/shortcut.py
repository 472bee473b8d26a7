"""A backbone without norms, whose resolutions are joined by shortcuts: for processors, and for short runs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import reduce, repeat
from jaxtyping import Float
from torch import Tensor, nn

from vqgan.backbones.backbone import Backbone, Decoder, Downsampling, PictureDecoder
from vqgan.backbones.sizes import MOST_BLOCKS, MOST_LEVELS
from vqgan.errors import check
from vqgan.frames import per_frame
from vqgan.layers import Recomputes


@dataclass(frozen=True, kw_only=True)
class Shortcut(Backbone):
    """Pixels folded into channels first, then residual blocks, the encoder's and the decoder's of sizes of their own.

    With the first multiplier 0, two by two pixels are one position from the beginning: at full resolution the
    reference's network spends most of its time, on a CPU half of it waiting for memory. From one resolution to the next
    there is, beside the convolution, a path without parameters: the values of a square become channels, averaged where
    they are too many, and the other way round (DC-AE, Chen et al. 2024, arXiv:2410.10733, section 3.1). So a network
    begins as an average over squares, and blocks, which begin as nothing, learn what is missing: no norm is needed to
    train it.

    Args:
        resolution: nominal side of a frame in pixels; other sides that are multiples of `downsampling` run as well.
        image_channels: 3 for rgb.
        channels: what the encoder's multipliers multiply.
        channel_multipliers: of each resolution, from the frame's own on; 0 where nothing is computed, as at the first.
        residual_blocks: of each resolution of the encoder.
        decoder_channels: what the same multipliers multiply in the decoder.
        decoder_blocks: of each resolution of the decoder.
        latent_channels: a divisor or a multiple of the last width of each.
    """

    resolution: int
    image_channels: int
    channels: int
    channel_multipliers: Sequence[int]
    residual_blocks: int
    decoder_channels: int
    decoder_blocks: int
    latent_channels: int

    def __post_init__(self) -> None:
        for name in ("image_channels", "channels", "decoder_channels", "latent_channels"):
            check(getattr(self, name) > 0, name, getattr(self, name), "positive")
        for name in ("residual_blocks", "decoder_blocks"):
            check(0 < getattr(self, name) <= MOST_BLOCKS, name, getattr(self, name), f"positive, at most {MOST_BLOCKS}")
        widths = self.multipliers
        check(
            len(widths) > 0 and len(self.channel_multipliers) <= MOST_LEVELS
            and all(width > 0 for width in widths)
            and all(4 * a % b == 0 for a, b in itertools.pairwise(widths)),
            "channel_multipliers", self.channel_multipliers[:20],
            f"at most {MOST_LEVELS} numbers, zeros only in front, each of the others dividing 4 times the one before",
        )  # fmt: skip
        for name in ("channels", "decoder_channels"):
            last = getattr(self, name) * widths[-1]
            fits = last % self.latent_channels == 0 or self.latent_channels % last == 0
            check(fits, "latent_channels", self.latent_channels, f"a divisor or a multiple of {last}, the last width")
        side = self.downsampling.height
        fits = self.resolution > 0 and self.resolution % side == 0
        check(fits, "resolution", self.resolution, f"a positive multiple of {side}")

    @property
    def multipliers(self) -> Sequence[int]:
        """Those of the resolutions at which something is computed."""
        return list(itertools.dropwhile(lambda multiplier: multiplier == 0, self.channel_multipliers))

    @property
    def fold(self) -> int:
        """Side, in pixels, of the square that is one position from the beginning."""
        return 2 ** (len(self.channel_multipliers) - len(self.multipliers))

    @property
    def downsampling(self) -> Downsampling:
        """Once between each two resolutions, whether by folding or by layers."""
        side = 2 ** (len(self.channel_multipliers) - 1)
        return Downsampling(1, side, side)

    def encoder(self) -> nn.Module:
        """Frames to latents."""
        return ShortcutEncoder(self)

    def decoder(self) -> Decoder:
        """Latents back to frames."""
        return ShortcutDecoder(self)


class ShortcutEncoder(Recomputes):
    """Folded pixels, then blocks and a halving for each resolution but the last."""

    def __init__(self, sizes: Shortcut) -> None:
        super().__init__()
        widths = [sizes.channels * multiplier for multiplier in sizes.multipliers]
        self.fold = sizes.fold
        self.conv_in = nn.Conv2d(sizes.fold**2 * sizes.image_channels, widths[0], 3, padding=1)
        parts: list[nn.Module] = []
        for i, width in enumerate(widths):
            parts += [Halve(widths[i - 1], width)] * (i > 0) + [Block(width) for _ in range(sizes.residual_blocks)]
        self.parts = nn.ModuleList(parts)
        self.conv_out = nn.Conv2d(widths[-1], sizes.latent_channels, 3, padding=1)

    def forward(
        self, frames: Float[Tensor, "batch time rgb height width"]
    ) -> Float[Tensor, "batch time latent rows columns"]:
        """Map frames in [-1, 1] to latents, `downsampling` pixels to a row or column."""
        return per_frame(self.pictures, frames)

    def pictures(self, frames: Float[Tensor, "frames rgb h w"]) -> Float[Tensor, "frames latent rows columns"]:
        """The same of pictures."""
        x = self.begin(frames)
        for part in self.parts:
            x = self.maybe_recomputed(part, x)
        return self.latents(x)

    def begin(self, frames: Float[Tensor, "frames rgb h w"]) -> Float[Tensor, "frames c h2 w2"]:
        """What goes into the first part."""
        return self.conv_in(F.pixel_unshuffle(frames, self.fold))

    def latents(self, x: Float[Tensor, "frames c h w"]) -> Float[Tensor, "frames latent h w"]:
        """What becomes of what the last part gives."""
        return self.conv_out(F.silu(x)) + other_width(x, self.conv_out.out_channels)


class ShortcutDecoder(PictureDecoder, Recomputes):
    """Blocks and a doubling for each resolution, then pixels unfolded."""

    def __init__(self, sizes: Shortcut) -> None:
        super().__init__()
        widths = [sizes.decoder_channels * multiplier for multiplier in sizes.multipliers]
        self.fold = sizes.fold
        self.conv_in = nn.Conv2d(sizes.latent_channels, widths[-1], 3, padding=1)
        parts: list[nn.Module] = []
        for i, width in reversed([*enumerate(widths)]):
            parts += [Block(width) for _ in range(sizes.decoder_blocks)] + [Double(width, widths[i - 1])] * (i > 0)
        self.parts = nn.ModuleList(parts)
        self.conv_out = nn.Conv2d(widths[0], self.fold**2 * sizes.image_channels, 3, padding=1)
        # The pixels of a position begin alike: what starts apart shows as a grid for long (Aitken et al. 2017,
        # arXiv:1707.02937).
        with torch.no_grad():
            for parameter in self.conv_out.parameters():
                parameter.copy_(repeat(parameter[:: self.fold**2], "c ... -> (c square) ...", square=self.fold**2))

    def features(self, latents: Float[Tensor, "frames latent rows columns"]) -> Float[Tensor, "frames c h w"]:
        """All of a picture but the last layer."""
        x = self.begin(latents)
        for part in self.parts:
            x = self.maybe_recomputed(part, x)
        return F.silu(x)

    def begin(self, latents: Float[Tensor, "frames latent h w"]) -> Float[Tensor, "frames c h w"]:
        """What goes into the first part."""
        return self.conv_in(latents) + other_width(latents, self.conv_in.out_channels)

    def pixels(self, features: Float[Tensor, "frames c h w"]) -> Float[Tensor, "frames rgb height width"]:
        """The last layer, a square of pixels from each position."""
        return F.pixel_shuffle(self.conv_out(features), self.fold)


class Block(nn.Module):
    """x + conv(swish(conv(swish(x)))), whose last convolution begins as nothing (Fixup, arXiv:1901.09321)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Add the block's correction to `x`."""
        return x + self.conv2(F.silu(self.conv1(F.silu(x))))


class Halve(nn.Module):
    """Half the sides: a square's values as channels, averaged to the width asked for, and a convolution beside."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out_channels, 4, stride=2, padding=1)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n out h2 w2"]:
        """Return `x` at half its sides."""
        return self.conv(F.silu(x)) + other_width(F.pixel_unshuffle(x, 2), self.conv.out_channels)


class Double(nn.Module):
    """Twice the sides: channels, repeated until there are enough, as a square's values, and a convolution beside."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.conv = nn.ConvTranspose2d(channels, out_channels, 4, stride=2, padding=1)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n out h2 w2"]:
        """Return `x` at twice its sides."""
        return self.conv(F.silu(x)) + F.pixel_shuffle(other_width(x, 4 * self.out_channels), 2)


def other_width(x: Float[Tensor, "n c h w"], channels: int) -> Float[Tensor, "n out h w"]:
    """Neighbouring channels averaged to fewer, or each repeated to more; one number divides the other."""
    if channels < x.shape[1]:
        return reduce(x, "n (c group) h w -> n c h w", "mean", c=channels)
    return repeat(x, "n c h w -> n (c group) h w", group=channels // x.shape[1])
