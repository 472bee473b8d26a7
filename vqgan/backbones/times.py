"""How many frames share a code, and where a network looks along time: what all backbones of clips have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vqgan.backbones.backbone import Downsampling
from vqgan.errors import check


@dataclass(frozen=True, kw_only=True)
class Times:
    """Two sizes beside those of a backbone of pictures, which is the class that follows among the bases.

    Args:
        resolution: see that backbone.
        channel_multipliers: see that backbone; one for each side, from the frame's own on.
        temporal_downsampling: frames to a code, k: 1, 2, 4 or 8. The first frame of a video has codes of its own, then
            every k have. Time is halved beside the last halvings of the sides, so there are at least as many of those.
        temporal_resolutions: the sides, in nominal pixels, at which each residual block has one along time beside it.
            With k = 1 and some of them each frame has its codes, and these know the frames before.
    """

    resolution: int
    channel_multipliers: Sequence[int]
    temporal_downsampling: int
    temporal_resolutions: Sequence[int]

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[misc]  # of the backbone of pictures, which comes after this class
        most = min(8, 2 ** (len(self.channel_multipliers) - 1))
        fits = self.temporal_downsampling in (1, 2, 4, 8) and self.temporal_downsampling <= most
        powers = ", ".join(str(2**i) for i in range(most.bit_length()))
        check(fits, "temporal_downsampling", self.temporal_downsampling, f"one of {powers}")
        sides = [self.side_at(level) for level, width in enumerate(self.channel_multipliers) if width > 0]
        fits = not self.temporal_resolutions or any(side in sides for side in self.temporal_resolutions)
        check(fits, "temporal_resolutions", self.temporal_resolutions, f"some of {', '.join(map(str, sides))}")

    @property
    def downsampling(self) -> Downsampling:
        """Frames and pixels to a code."""
        pictures: Downsampling = super().downsampling  # type: ignore[misc]
        return pictures._replace(time=self.temporal_downsampling)

    def side_at(self, level: int) -> int:
        """Nominal side of level `level`, 0 being the full resolution."""
        return int(self.resolution // 2**level)

    def changes_rate(self, lower: int) -> bool:
        """Whether time is halved (doubled) between level `lower` and the one above, `lower` - 1."""
        last = len(self.channel_multipliers) - 1
        return last - lower < self.temporal_downsampling.bit_length() - 1

    def has_time(self, level: int) -> bool:
        """Whether blocks along time stand at a level."""
        return self.side_at(level) in self.temporal_resolutions
