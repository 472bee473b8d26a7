"""What a clip costs in tokens and bits."""

from __future__ import annotations

import math
from dataclasses import dataclass

from vqgan.autoencoder import Autoencoder


@dataclass(frozen=True)
class Rate:
    """Of clips of one size. f8 is a position for 8 × 8 pixels, k4 one for 4 frames."""

    fold: str  # as f8k4
    per_latent_frame: bool  # several frames share codes
    rows: int
    columns: int
    depth: int  # codes of a position
    bits_per_token: float  # as many as it takes to name any code
    tokens_per_frame: float  # of the clip, codes over frames
    bits_per_pixel: float

    @property
    def said(self) -> str:
        """In a line."""
        depth = f" × {self.depth}" if self.depth > 1 else ""
        count = self.rows * self.columns * self.depth
        per = "latent frame" if self.per_latent_frame else "frame"
        return (
            f"{self.fold}: {self.rows} × {self.columns}{depth} = {count:,} a {per}, {self.bits_per_token:.4g} bits "
            f"each, {self.bits_per_pixel:.3g} bits a pixel"
        )


def rate_of(autoencoder: Autoencoder, frames: int, height: int, width: int) -> Rate:
    """What clips of that size cost."""
    quantizer, by = autoencoder.quantizer, autoencoder.downsampling
    rows, columns, bits = height // by.height, width // by.width, math.log2(quantizer.codebook_size)
    fold = f"f{by.height}" if by.height == by.width else f"f{by.height}×{by.width}"
    fold += f"k{by.time}" if by.time > 1 else ""
    tokens = by.times(frames) * rows * columns * quantizer.depth / frames
    return Rate(fold, by.time > 1, rows, columns, quantizer.depth, bits, tokens, tokens * bits / (height * width))
