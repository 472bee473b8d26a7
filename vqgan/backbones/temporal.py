"""What works along time, and only ever looks back: a network of pictures becomes one of clips by these alone.

All of it starts as nothing: a network that has it begins as the one of pictures that it is made of, bit for bit in
float32. Time is convolved by 1×1 convolutions over frames side by side, so no norm and no kernel sees a later frame.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vqgan.backbones.backbone import PictureDecoder
from vqgan.backbones.blocks import Level, Middle, normalization
from vqgan.frames import per_frame
from vqgan.layers import Recomputes

TAPS = 3  # a frame and the two before it

Features = Float[Tensor, "batch time c h w"]
Changed = Float[Tensor, "batch time2 c2 h w"]  # at another rate, perhaps of another width


class Memory:
    """What is kept of a video between one part of it and the next; a value that belongs to that video alone.

    Attributes:
        last: of each convolution along time the newest frames that it has seen.
        taken: frames (of an encoder) or times of codes (of a decoder) that have gone in.
    """

    def __init__(self) -> None:
        self.last: dict[nn.Module, Tensor] = {}
        self.taken = 0


class Temporal(nn.Module):
    """A part along time: what a network of pictures does not have, and a network of clips starts without."""


class Remembers(nn.Module):
    """An encoder or decoder whose frames depend on earlier ones: `forward(x, memory)` goes on after the last part.

    Without a memory, or with an empty one, the first frame stands for all before it.
    """


class DecoderOfClips(PictureDecoder, Remembers):
    """A decoder of pictures, which follows among the bases, with `features` of clips that go on after a memory."""

    def forward(
        self, latents: Float[Tensor, "batch time latent rows columns"], memory: Memory | None = None
    ) -> Float[Tensor, "batch time2 rgb height width"]:
        """Map 1 + n latents to 1 + k·n frames, nominally in [-1, 1]; where a memory goes on, n to k·n."""
        compiled = self.compiled if memory is None else None
        features = self.features(latents, memory) if compiled is None else compiled(latents)
        return per_frame(self.pixels, features)

    @abstractmethod
    def features(
        self, latents: Float[Tensor, "batch time latent rows columns"], memory: Memory | None = None
    ) -> Float[Tensor, "batch time2 c h w"]:
        """All of the frames but the last layer."""


class TemporalConv(nn.Module):
    """y_t = b + Σ_j W_j · x_{s·t - 2 + j}, j from 0 to 2, with x_0 for what is before it; starts as zero.

    Frame by frame in space, the channels of three frames to those of one.

    Args:
        channels: in.
        out_channels: out.
        stride: s, 1 or 2.
    """

    def __init__(self, channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        # Not by torch's layer, which would draw random numbers: the rest of the network starts as it does without.
        self.weight = nn.Parameter(torch.zeros(out_channels, TAPS * channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Features, memory: Memory | None) -> Changed:
        """Convolve the frames of a part of a video: at stride 2 first 1 + 2·n of them, then 2·n."""
        return self.mix(self.taps(x, memory))

    def taps(self, x: Features, memory: Memory | None) -> list[Changed]:
        """The frames at each tap, the oldest first."""
        before = None if memory is None else memory.last.get(self)
        if before is None:
            before = x[:, :1].expand(-1, TAPS - 1, -1, -1, -1)
        seen = joined(lambda parts, _: torch.cat(parts, 1), [before, x])
        if memory is not None:  # a copy: a view would keep the whole part alive
            memory.last[self] = seen[:, self.stride - TAPS :].clone()
        beyond = self.stride * ((seen.shape[1] - TAPS) // self.stride) + 1
        return [seen[:, tap : tap + beyond : self.stride] for tap in range(TAPS)]

    def mix(self, taps: Sequence[Features]) -> Changed:
        """The sum over taps."""
        return per_frame(lambda frames: F.conv2d(frames, self.weight, self.bias), joined(torch.cat, taps))


class TemporalBlock(Temporal):
    """x + conv(swish(norm(x))), the convolution along time, the norm of each frame by itself."""

    def __init__(self, channels: int, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        self.conv = TemporalConv(channels, channels, 1)

    def forward(self, x: Features, memory: Memory | None) -> Features:
        """Add to each frame what it learns from those before."""
        return x + self.conv(per_frame(lambda frames: F.silu(self.norm(frames)), x), memory)


class HalveTime(Temporal):
    """1 + 2·n frames to 1 + n: every second one, from the first on, and a convolution over it and the two before."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = TemporalConv(channels, channels, 2)

    def forward(self, x: Features, memory: Memory | None) -> Changed:
        """Return the frames at half their rate."""
        taps = self.conv.taps(x, memory)
        return taps[-1] + self.conv.mix(taps)


class DoubleTime(Temporal):
    """1 + n frames back to 1 + 2·n: two for each, of which the very first one's first is left out."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = TemporalConv(channels, 2 * channels, 1)

    def forward(self, x: Features, memory: Memory | None) -> Changed:
        """Return the frames at twice their rate."""
        begins = memory is None or self.conv not in memory.last
        former, latter = (x + half for half in self.conv(x, memory).chunk(2, 2))
        alone = int(begins)

        def in_turn(halves: list[Tensor], _: int) -> Tensor:
            pairs = torch.stack([half[:, alone:] for half in halves], 2).flatten(1, 2)
            return torch.cat([halves[1][:, :alone], pairs], 1)

        return joined(in_turn, [former, latter])


class LevelInTime(Recomputes):
    """What a level has along time: a block after each of its own, and a change of rate, where these are asked for.

    Args:
        blocks: of the level, each followed by one along time; 0 for none.
        channels: of the level.
        norm_groups: of its norms.
        rate: halves or doubles time beside the level's change of side; None leaves it.
    """

    def __init__(self, blocks: int, channels: int, norm_groups: int, rate: HalveTime | DoubleTime | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            TemporalBlock(channels, normalization(channels, norm_groups)) for _ in range(blocks)
        )
        self.rate = rate

    def forward(self, level: Level, x: Features, memory: Memory | None) -> Changed:
        """Run the blocks of the level, and those along time between them."""
        for i in range(len(level.block)):
            x = self.maybe_recomputed(self._step, level, i, x, memory)
        return x

    def change_rate(self, x: Features, memory: Memory | None) -> Changed:
        """Halve or double time."""
        return x if self.rate is None else self.rate(x, memory)

    def _step(self, level: Level, i: int, x: Tensor, memory: Memory | None) -> Tensor:
        x = per_frame(lambda frames: level.step(i, frames), x)
        return self.blocks[i](x, memory) if self.blocks else x


class MiddleInTime(nn.Module):
    """What the middle has along time: a block after its attention, and one at its end, or none.

    Args:
        present: whether it has them.
        channels: of the middle.
        norm_groups: of its norms.
    """

    def __init__(self, present: bool, channels: int, norm_groups: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            TemporalBlock(channels, normalization(channels, norm_groups)) for _ in range(2) if present
        )

    def forward(self, middle: Middle, x: Features, memory: Memory | None) -> Features:
        """Run the middle, and those along time in it."""
        x = per_frame(lambda frames: middle.attn_1(middle.block_1(frames)), x)
        x = self.blocks[0](x, memory) if self.blocks else x
        x = per_frame(middle.block_2, x)
        return self.blocks[1](x, memory) if self.blocks else x


def joined(function: Callable[[list[Tensor], int], Tensor], parts: Sequence[Tensor]) -> Tensor:
    """What a function joins clips to, in the memory format of their frames, which torch loses with five dimensions.

    Args:
        function: is given the clips and the axis of their channels, which may be the last one.
        parts: clips, (batch, time, c, h, w), of one format.
    """
    if parts[-1].stride(2) != 1:
        return function([*parts], 2)
    return function([part.movedim(2, -1) for part in parts], -1).movedim(-1, 2)


def temporal_names(network: nn.Module) -> set[str]:
    """The names, in a state dict, of all that a network has along time."""
    return {
        f"{name}.{own}"
        for name, module in network.named_modules()
        if isinstance(module, Temporal)
        for own in module.state_dict()
    }
