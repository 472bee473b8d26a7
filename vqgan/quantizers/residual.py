"""Each code says what the ones before have left."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

from vqgan.errors import check
from vqgan.quantizers.compound import Compound
from vqgan.quantizers.quantizer import Quantized, Quantizer
from vqgan.quantizers.rotation import Gradient, pass_gradient


class ResidualQuantizer(Compound):
    """Residual quantization (RQ-VAE, Lee et al. 2022, arXiv:2203.01941): z ≈ Σ_i s^i e_i with e_i for what is left.

    r_0 = z,   e_i = base(r_i / s^i),   r_{i+1} = r_i - s^i sg[e_i],   loss = mean_i of the base's own for r_i / s^i

    With a commitment loss that is RQ-VAE's mean_i mean (z - sg[Σ_{j≤i} e_j])². Gradients pass the sum by `gradient`,
    not by the base's own way. Several codes a position buy detail far cheaper than a larger codebook: K^depth
    combinations. RQ-VAE has depth 4, one shared codebook of 16384, moving averages, commitment 0.25. A shared codebook
    moves once a step, by the residuals of all depths together. Not for codes of one length (`CosineQuantizer`), which
    cannot shrink with what is left, unless s does it.

    Args:
        base: the quantizer of each depth.
        depth: at least 2.
        shared: whether all depths have one codebook, or each its own.
        scale: s, in (0, 1]: 1 for codebooks, which learn their size; 0.5 for codes of sign bits.
        gradient: how gradients pass to the latents, see `pass_gradient`.
    """

    def __init__(self, base: Quantizer, depth: int, shared: bool, scale: float, gradient: Gradient) -> None:
        check(depth > 1, "depth", depth, "at least 2")
        check(0 < scale <= 1, "scale", scale, "in (0, 1]")
        super().__init__(base, depth, shared, base.latent_dim)
        self.scale, self.gradient = scale, gradient

    def forward(self, latents: Float[Tensor, "*batch latent rows columns"]) -> Quantized:
        """Replace each latent by a sum of codes."""
        left, parts = latents, []
        for number in range(self.count):
            scale = self.scale**number
            parts.append(self.base(number)(left / scale))
            left = left - parts[-1].latents.detach() * scale
        codes = self._sum([part.latents.detach() for part in parts])
        return self.join(pass_gradient(self.gradient, latents, codes), parts)

    def lookup(self, indices: Int[Tensor, "*batch rows columns depth"]) -> Float[Tensor, "*batch latent rows columns"]:
        """The sums of codes that `indices` name."""
        return self._sum([self.base(number).lookup(part) for number, part in enumerate(self.split(indices))])

    def _sum(self, codes: list[Tensor]) -> Tensor:
        """In one order always, so that the same codes make the same bits."""
        total = codes[0]
        for number in range(1, self.count):
            total = total + codes[number] * self.scale**number
        return total
