"""The backbone without norms, for clips: a code sees its frames and those before, and stands for several of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vqgan.backbones.backbone import Decoder
from vqgan.backbones.shortcut import Block, Double, Halve, Shortcut, ShortcutDecoder, ShortcutEncoder
from vqgan.backbones.temporal import DecoderOfClips, DoubleTime, HalveTime, Memory, Remembers, TemporalBlock
from vqgan.backbones.times import Times
from vqgan.frames import per_frame


@dataclass(frozen=True, kw_only=True)
class CausalShortcut(Times, Shortcut):
    """`Shortcut` with what `Causal` adds to the reference's network; the sizes of both, see `Shortcut` and `Times`.

    Parameters of the picture model keep their names, and what is added starts as nothing. Where time is to be halved
    beside a folding of pixels, that is as soon as they are folded.
    """

    def encoder(self) -> nn.Module:
        """Frames to latents."""
        return CausalShortcutEncoder(self)

    def decoder(self) -> Decoder:
        """Latents back to frames."""
        return CausalShortcutDecoder(self)


class CausalShortcutEncoder(ShortcutEncoder, Remembers):
    """That of pictures; after each part of it time is looked along, or halved, where that is asked for."""

    def __init__(self, sizes: CausalShortcut) -> None:
        super().__init__(sizes)
        folds = len(sizes.channel_multipliers) - len(sizes.multipliers)
        halved = sum(map(sizes.changes_rate, range(1, folds + 1)))
        self.folded = nn.ModuleList(HalveTime(self.conv_in.out_channels) for _ in range(halved))
        self.time = _beside(self.parts, sizes, folds)

    def forward(
        self, frames: Float[Tensor, "batch time rgb height width"], memory: Memory | None = None
    ) -> Float[Tensor, "batch time2 latent rows columns"]:
        """Map 1 + k·n frames in [-1, 1] to 1 + n latents; where a memory goes on, k·n to n."""
        x = per_frame(self.begin, frames)
        for rate in self.folded:
            x = rate(x, memory)
        for n in range(len(self.parts)):
            x = self.maybe_recomputed(self._step, n, x, memory)
        return per_frame(self.latents, x)

    def _step(self, n: int, x: Tensor, memory: Memory | None) -> Tensor:
        x = per_frame(self.parts[n], x)
        return self.time[str(n)](x, memory) if str(n) in self.time else x


class CausalShortcutDecoder(DecoderOfClips, ShortcutDecoder):
    """That of pictures; before each part of it time is looked along, or doubled, where that is asked for."""

    def __init__(self, sizes: CausalShortcut) -> None:
        super().__init__(sizes)
        folds = len(sizes.channel_multipliers) - len(sizes.multipliers)
        self.time = _beside(self.parts, sizes, len(sizes.channel_multipliers) - 1)
        doubled = sum(map(sizes.changes_rate, range(1, folds + 1)))
        self.folded = nn.ModuleList(DoubleTime(self.conv_out.in_channels) for _ in range(doubled))

    def features(
        self, latents: Float[Tensor, "batch time latent rows columns"], memory: Memory | None = None
    ) -> Float[Tensor, "batch time2 c h w"]:
        """All of the frames but the last layer."""
        x = per_frame(self.begin, latents)
        for n in range(len(self.parts)):
            x = self.maybe_recomputed(self._step, n, x, memory)
        for rate in self.folded:
            x = rate(x, memory)
        return F.silu(x)

    def _step(self, n: int, x: Tensor, memory: Memory | None) -> Tensor:
        x = self.time[str(n)](x, memory) if str(n) in self.time else x
        return per_frame(self.parts[n], x)


def _beside(parts: nn.ModuleList, sizes: CausalShortcut, level: int) -> nn.ModuleDict:
    """What works along time, by the number of the part that it stands beside, the first of which is at `level`."""
    beside = nn.ModuleDict()
    for n, part in enumerate(parts):
        level += isinstance(part, Halve)
        if isinstance(part, Block) and sizes.has_time(level):
            beside[str(n)] = TemporalBlock(part.conv1.in_channels, nn.Identity())
        elif isinstance(part, Halve) and sizes.changes_rate(level):
            beside[str(n)] = HalveTime(part.conv.out_channels)
        elif isinstance(part, Double) and sizes.changes_rate(level):
            beside[str(n)] = DoubleTime(part.conv.in_channels)
        level -= isinstance(part, Double)
    return beside
