"""Rotary positions in time, row and column."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

AXES = 3  # time, row, column


class Rotation:
    """Turns queries and keys by their places, so that their product depends on how far apart these are.

    The pairs of a head's numbers are dealt out to the axes; pair i of the n of an axis is turned by
    place · base^(-i/n) radians (Su et al. 2021, arXiv:2104.09864, equation 15, here along three axes).

    Args:
        places: time, row and column of each, whole numbers.
        size: of a head, even and at least 6.
        base: above 1; about as many radians apart as the farthest places that are to be told apart.
    """

    def __init__(self, places: Int[Tensor, "slots 3"], size: int, base: float) -> None:
        pairs = size // 2
        spread = [pairs - pairs // AXES * (AXES - 1), *[pairs // AXES] * (AXES - 1)]  # what is left over is time's
        powers = [torch.arange(n, device=places.device) / n for n in spread]
        angles = torch.cat([places[:, [axis]] * base**-power for axis, power in enumerate(powers)], 1)
        self.cos, self.sin = angles.cos(), angles.sin()

    def __call__(self, heads: Float[Tensor, "batch heads slots size"]) -> Float[Tensor, "batch heads slots size"]:
        """The same in length, turned; float32 inside."""
        first, second = heads.float().chunk(2, -1)
        turned = [first * self.cos - second * self.sin, first * self.sin + second * self.cos]
        return torch.cat(turned, -1).to(heads.dtype)
