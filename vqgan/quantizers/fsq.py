"""Each number of a latent rounded to one of a few levels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vqgan.errors import check
from vqgan.quantizers.assignment import straight_through
from vqgan.quantizers.implicit import ImplicitQuantizer
from vqgan.quantizers.quantizer import Quantized

# The published bounds reach so much further than the outer levels. From 1001 levels on that would round to a level
# that is not there.
REACH, MOST_LEVELS = 1 + 1e-3, 1000
MOST_BITS = 62  # of an index


class FiniteScalarQuantizer(ImplicitQuantizer):
    """Finite scalar quantization (Mentzer et al. 2023, arXiv:2309.15505).

    There is no table, no loss and no state, so nothing can collapse; a code is a point of a grid. Of each number z of
    a latent, which has L levels::

        published   h = (L - 1) · 1.001 / 2,  o = ½ for even L, else 0,  s = atanh(o / h)
                    digit = round(h · tanh(gain · z + s) - o) + ⌊L / 2⌋,   code = (digit - ⌊L / 2⌋) / ⌊L / 2⌋
        symmetric   digit = ⌊(L - 1) · (tanh(gain · z) + 1) / 2 + ½⌋,      code = 2 · digit / (L - 1) - 1

    Gradients pass the rounding as if it were not there. Published codes of an even L are -1, …, 1 - 2 / L, so not
    balanced around 0, which is one of them; symmetric ones (Parker et al. 2024, arXiv:2411.19842) go from -1 to 1, and
    of an even L none is 0. With odd levels, symmetric and with a gain of 0.8 this is iFSQ (arXiv:2601.17124):
    2 · sigmoid(1.6 · z) - 1 is tanh(0.8 · z).

    The index is Σ digit_i · Π_{j<i} L_j: the first number's digit changes fastest, as in the published code.

    Choose it where a codebook collapses, or for many codes: it takes no memory for them. Paper's levels: [8, 6, 5] for
    2^8 codes, [8, 5, 5, 5] for 2^10, [7, 5, 5, 5, 5] for 2^12, [8, 8, 8, 6, 5] for 2^14, [8, 8, 8, 5, 5, 5] for 2^16;
    5 or more each. Latents far beyond 3 get no gradient any more, since tanh is flat there.

    Args:
        levels: of each number of a latent, in [3, 1000]; from 2 on if symmetric. Their product is the number of codes.
        symmetric: the second kind of bounds.
        gain: positive; by which latents are multiplied. The published one is 1.
    """

    levels: Int[Tensor, "latent"]
    places: Int[Tensor, "latent"]

    def __init__(self, levels: Sequence[int], symmetric: bool, gain: float) -> None:
        fewest = 2 if symmetric else 3  # of two levels the published offset is at the bound: atanh(0.999) shifts by 3.8
        fits = 0 < len(levels) <= MOST_BITS and all(fewest <= n <= MOST_LEVELS for n in levels)
        fits = fits and math.prod(levels) <= 2**MOST_BITS
        expected = f"whole numbers in [{fewest}, {MOST_LEVELS}], whose product is at most 2^{MOST_BITS}"
        check(fits, "levels", levels, expected if symmetric else f"{expected} (2 needs symmetric)")
        check(gain > 0, "gain", gain, "positive")
        super().__init__(math.prod(levels), len(levels))
        self.symmetric, self.gain = symmetric, gain
        # They never change, so a checkpoint need not hold them.
        self.register_buffer("levels", torch.tensor(levels), persistent=False)
        places = [math.prod(levels[:i]) for i in range(len(levels))]
        self.register_buffer("places", torch.tensor(places), persistent=False)

    def forward(self, latents: Float[Tensor, "*batch latent rows columns"]) -> Quantized:
        """Round each number of each latent."""
        z = latents.movedim(-3, -1)
        digits, before = self._bounded(z)
        codes = self._codes(digits).movedim(-1, -3)
        indices = (digits * self.places).sum(-1)
        quantized = straight_through(before.movedim(-1, -3), codes)
        return Quantized(quantized, indices, latents.new_zeros(()), {"perplexity": self.measure_use(indices)})

    def lookup(self, indices: Int[Tensor, "*batch rows columns"]) -> Float[Tensor, "*batch latent rows columns"]:
        """The codes that `indices` name."""
        return self._codes(indices[..., None] // self.places % self.levels).movedim(-1, -3)

    def _bounded(self, z: Float[Tensor, "... latent"]) -> tuple[Int[Tensor, "... latent"], Float[Tensor, "... latent"]]:
        """The digits, and what they are rounded from, scaled as codes are."""
        steps = self.levels - 1
        if self.symmetric:
            bounded = torch.tanh(self.gain * z)
            digits = (steps * (bounded + 1) / 2 + 0.5).floor()
            before = bounded
        else:
            half = steps * (REACH / 2)
            offset = (1 - self.levels % 2) / 2
            bounded = half * torch.tanh(self.gain * z + torch.atanh(offset / half)) - offset
            digits = bounded.round() + self.levels // 2
            before = bounded / (self.levels // 2)
        # What is not a number has to be some digit, since use is counted before a broken step is noticed.
        return digits.detach().long().clamp(min=0).minimum(steps), before

    def _codes(self, digits: Int[Tensor, "... latent"]) -> Float[Tensor, "... latent"]:
        if self.symmetric:
            return (2 * digits - (self.levels - 1)) / (self.levels - 1)
        return (digits - self.levels // 2) / (self.levels // 2)
