"""Each code says one share of a latent's numbers."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vqgan.errors import check
from vqgan.quantizers.compound import Compound
from vqgan.quantizers.quantizer import Quantized, Quantizer


class ProductQuantizer(Compound):
    """Product quantization (Jégou et al. 2011): a latent is cut into groups, each with a codebook of its own.

    K^groups combinations, and no group waits for another: many small codebooks are used where one large one would
    collapse. Loss and metrics are means over groups. Published as heads (OptVQ, 4 and 8 of 16384 codes), and as 8
    codebooks of 4096 codes of 8 dimensions (UniTok, arXiv:2502.20321).

    Args:
        base: the quantizer of each group; its `latent_dim` is that of a group.
        groups: at least 2.
    """

    def __init__(self, base: Quantizer, groups: int) -> None:
        check(groups > 1, "groups", groups, "at least 2")
        super().__init__(base, groups, shared=False, latent_dim=groups * base.latent_dim)

    def forward(self, latents: Float[Tensor, "*batch latent rows columns"]) -> Quantized:
        """Replace each group of a latent by a code; gradients pass as each base lets them."""
        parts = [self.base(number)(group) for number, group in enumerate(latents.chunk(self.count, -3))]
        return self.join(torch.cat([part.latents for part in parts], -3), parts)

    def lookup(self, indices: Int[Tensor, "*batch rows columns depth"]) -> Float[Tensor, "*batch latent rows columns"]:
        """The codes that `indices` name, one group after the other."""
        return torch.cat([self.base(number).lookup(part) for number, part in enumerate(self.split(indices))], -3)
