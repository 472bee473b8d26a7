"""The corners of a cube on a sphere as codes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from vqgan.errors import check
from vqgan.quantizers.assignment import straight_through
from vqgan.quantizers.bits import EntropyPenalty, bits_of, to_groups, to_indices, to_signs
from vqgan.quantizers.implicit import ImplicitQuantizer
from vqgan.quantizers.quantizer import Quantized

MOST_BITS = 62  # of an index
MOST_GROUP_BITS = 20  # whose distribution is a table


class BinarySphericalQuantizer(ImplicitQuantizer):
    """Binary spherical quantization (Zhao et al. 2024, arXiv:2406.07548, section 4).

    u = z / |z|,  code = sign u / √d  for the d = depth · log2(codebook_size) numbers of a latent, where 0 is negative.

    loss = commitment_weight · mean |u - sg[code]|²
         + entropy_weight · factor · (E_n H(p_n) - diversity_weight · Σ_g H(E_n p_n,g))

    A bit is 1 with the probability sigmoid(4 u / (√d · temperature)). The second entropy is of each group g of
    `group_bits` bits apart: of single bits, as published, d numbers at any codebook size. See `EntropyPenalty` for the
    factor; evaluation leaves the entropies out. Latents and codes are both of length 1, so they are never far apart,
    and no commitment is needed.

    Gradients pass the signs straight through and then the scale, so that u gets 1 / √d of the codes' gradient, as in
    the published code. (Infinity's, arXiv:2412.04431, and lucidrains' have no such factor.) Bit i of an index, 2^i, is
    number i of the latent; in the published code the first number is the highest bit.

    Choose it for the most bits a position: 18 and 36 are published, with weights 0, 0.1 and 1, temperature 1, groups
    of 1 bit and a boost of 3 over 2000 steps. 36 bits are best two codes of 2^18 (`depth` 2), whose use can be counted
    and whose indices are small; as one code of 2^36 only the perplexity of a batch is known.

    Args:
        codebook_size: codes, a power of 2 up to 2^62.
        depth: codes a position; they share its sphere.
        commitment_weight: at least 0.
        entropy_weight: at least 0.
        diversity_weight: at least 0.
        group_bits: bits whose joint distribution is spread, at most 20; a divisor of the bits of a latent.
        temperature: positive; the published `inv_temperature` is 1 / temperature, by which it divides entropy_weight.
        entropy_boost: at least 0; times the entropies weigh more at first.
        entropy_boost_steps: at least 1; steps until it is once.
    """

    def __init__(
        self,
        codebook_size: int,
        depth: int,
        commitment_weight: float,
        entropy_weight: float,
        diversity_weight: float,
        group_bits: int,
        temperature: float,
        entropy_boost: float,
        entropy_boost_steps: int,
    ) -> None:
        check(commitment_weight >= 0, "commitment_weight", commitment_weight, "at least 0")
        check(temperature > 0, "temperature", temperature, "positive")
        check(depth > 0, "depth", depth, "positive")
        bits = bits_of(codebook_size, MOST_BITS)
        divides = 0 < group_bits <= MOST_GROUP_BITS and depth * bits % group_bits == 0
        expected = f"a divisor of {depth * bits}, the bits of a latent, and at most {MOST_GROUP_BITS}"
        check(divides, "group_bits", group_bits, expected)
        super().__init__(codebook_size, depth * bits, depth)
        self.bits, self.group_bits = bits, group_bits
        self.commitment_weight, self.temperature = commitment_weight, temperature
        self.scale = float(self.latent_dim) ** -0.5
        self.entropy = EntropyPenalty(entropy_weight, diversity_weight, entropy_boost, entropy_boost_steps)

    def forward(self, latents: Float[Tensor, "*batch latent rows columns"]) -> Quantized:
        """Replace each latent by the corner of the cube that is nearest to it on the sphere."""
        # The length's lower bound keeps the gradient of a latent of all but 0 within bounds.
        u = F.normalize(latents, dim=-3, eps=1e-6)
        indices = to_indices(u, self.depth)
        codes = self.lookup(indices)
        # Summed over a latent's numbers: the weight should not depend on how many there are.
        loss = self.commitment_weight * (u - codes).square().sum(-3).mean()
        metrics = {"perplexity": self.measure_use(indices)}
        if self.training:
            penalty, entropies = self.entropy(to_groups(4 * self.scale / self.temperature * u, self.group_bits))
            loss, metrics = loss + penalty, metrics | entropies
        return Quantized(straight_through(self.scale * u, codes), indices, loss, metrics)

    def lookup(self, indices: Int[Tensor, "*batch rows columns *depth"]) -> Float[Tensor, "*batch latent rows columns"]:
        """The codes that `indices` name: -1/√d and 1/√d."""
        return self.scale * to_signs(indices, self.bits, self.depth)

    @torch.no_grad()
    def update(self) -> None:
        """Take note that an optimizer step is over."""
        super().update()
        self.entropy.update()
