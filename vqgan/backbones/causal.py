"""The backbone of VQGAN for clips: a code sees its frames and those before, and stands for several of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vqgan.backbones.backbone import Backbone, Decoder
from vqgan.backbones.decoder import ConvolutionalDecoder, UpLevel
from vqgan.backbones.encoder import ConvolutionalEncoder, DownLevel
from vqgan.backbones.sizes import Sizes
from vqgan.backbones.temporal import DecoderOfClips, DoubleTime, HalveTime, LevelInTime, Memory, MiddleInTime, Remembers
from vqgan.backbones.times import Times
from vqgan.frames import per_frame


@dataclass(frozen=True, kw_only=True)
class CausalSizes(Times, Sizes):
    """The sizes of a causal encoder and its decoder: those of one of pictures, see `Sizes`, and two for time."""


class Causal(CausalSizes, Backbone):
    """VQGAN's encoder and decoder with residual blocks along time between theirs; see `Sizes` and `Times`.

    Each frame depends on itself and on earlier ones alone, so a video of any length is one stream. Parameters of the
    picture model keep their names, and what is added starts as nothing: with the weights of a tokenizer of pictures it
    reconstructs a picture as that does. 2+1 dimensions as in VidTok (arXiv:2412.13061), the causal order and the first
    frame by itself as in MAGVIT-v2 (arXiv:2310.05737), but with the first frame repeated before the beginning.
    """

    def encoder(self) -> nn.Module:
        """Frames to latents."""
        return CausalEncoder(self)

    def decoder(self) -> Decoder:
        """Latents back to frames."""
        return CausalDecoder(self)


class CausalEncoder(ConvolutionalEncoder, Remembers):
    """That of pictures; time is looked along after each block, and halved after the side is."""

    def __init__(self, sizes: CausalSizes) -> None:
        super().__init__(sizes)
        last = len(sizes.channel_multipliers) - 1
        self.time = nn.ModuleList(
            _level(sizes, i, sizes.residual_blocks, HalveTime if i < last and sizes.changes_rate(i + 1) else None)
            for i in range(last + 1)
        )
        self.mid_time = _middle(sizes)

    def forward(
        self, frames: Float[Tensor, "batch time rgb height width"], memory: Memory | None = None
    ) -> Float[Tensor, "batch time2 latent rows columns"]:
        """Map 1 + k·n frames in [-1, 1] to 1 + n latents; where a memory goes on, k·n to n."""
        h = per_frame(self.conv_in, frames)
        for level, time in zip(cast(list[DownLevel], self.down), cast(list[LevelInTime], self.time)):
            h = per_frame(level.downsample, time(level, h, memory))
            h = time.change_rate(h, memory)
        h = self.mid_time(self.mid, h, memory)
        return per_frame(lambda last: self.conv_out(F.silu(self.norm_out(last))), h)


class CausalDecoder(DecoderOfClips, ConvolutionalDecoder):
    """That of pictures; time is looked along after each block, and doubled before the side is."""

    def __init__(self, sizes: CausalSizes) -> None:
        super().__init__(sizes)
        self.time = nn.ModuleList(
            _level(sizes, i, sizes.residual_blocks + 1, DoubleTime if i > 0 and sizes.changes_rate(i) else None)
            for i in range(len(sizes.channel_multipliers))
        )
        self.mid_time = _middle(sizes)

    def features(
        self, latents: Float[Tensor, "batch time latent rows columns"], memory: Memory | None = None
    ) -> Float[Tensor, "batch time2 c h w"]:
        """All of the frames but the last layer."""
        h = self.mid_time(self.mid, per_frame(self.conv_in, latents), memory)
        levels = [*zip(cast(list[UpLevel], self.up), cast(list[LevelInTime], self.time))]
        for level, time in reversed(levels):
            h = time.change_rate(time(level, h, memory), memory)
            h = per_frame(level.upsample, h)
        return per_frame(lambda last: F.silu(self.norm_out(last)), h)


def _level(sizes: CausalSizes, level: int, blocks: int, rate: type[HalveTime] | type[DoubleTime] | None) -> LevelInTime:
    channels = sizes.channels_at(level)
    present = blocks if sizes.has_time(level) else 0
    return LevelInTime(present, channels, sizes.norm_groups, None if rate is None else rate(channels))


def _middle(sizes: CausalSizes) -> MiddleInTime:
    last = len(sizes.channel_multipliers) - 1
    return MiddleInTime(sizes.has_time(last), sizes.channels_at(last), sizes.norm_groups)
