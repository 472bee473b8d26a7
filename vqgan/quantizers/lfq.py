"""The signs of latents as codes."""

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

MOST_BITS = 24  # of a code, since the entropy of the batch is taken over all codes


class LookupFreeQuantizer(ImplicitQuantizer):
    """Lookup-free quantization of MAGVIT-v2 (Yu et al. 2023, arXiv:2310.05737, section 3).

    code = sign z, where 0 is -1; a latent has one number for each bit, and gradients pass the signs straight through.

    loss = commitment_weight · mean (z - sg[code])²
         + entropy_weight · factor · (E_n H(p_n) - diversity_weight · H(E_n p_n))

    The distribution over codes is p_n ∝ exp(2 z·code / temperature): of each bit independently
    sigmoid(4 z / temperature). So both entropies are exact at any size (see `EntropyPenalty`, also for the factor), in
    memory for 2 · n · √codes + codes numbers; evaluation leaves them out. Bit i of an index, 2^i, is number i of the
    latent, as in Open-MAGVIT2 (arXiv:2409.04410); lucidrains' LFQ has them the other way round.

    With `depth` above 1 a latent is that many codes beside each other, each with a distribution of its own, whose
    entropies are averaged: group-wise LFQ (WeTok, arXiv:2508.05599: 8 codes of 2^8), with which many more bits are
    possible. (WeTok itself averages the distributions of its groups, so that one may collapse behind the others.)

    Choose it for large codebooks, from 2^12 on, and long runs. Published: weights 0.25, 0.1 (MaskBit: 0.02) and 1,
    temperature 0.01, 2^10 to 2^18 codes. At that temperature only latents within about 0.02 of 0 feel the entropy, so
    they should not be large. The loss may well be negative.

    Args:
        codebook_size: codes, a power of 2 up to 2^24.
        depth: codes a position.
        commitment_weight: at least 0.
        entropy_weight: at least 0.
        diversity_weight: at least 0.
        temperature: positive.
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
        temperature: float,
        entropy_boost: float,
        entropy_boost_steps: int,
    ) -> None:
        check(commitment_weight >= 0, "commitment_weight", commitment_weight, "at least 0")
        check(temperature > 0, "temperature", temperature, "positive")
        check(depth > 0, "depth", depth, "positive")
        bits = bits_of(codebook_size, MOST_BITS)
        super().__init__(codebook_size, depth * bits, depth)
        self.bits, self.commitment_weight, self.temperature = bits, commitment_weight, temperature
        self.entropy = EntropyPenalty(entropy_weight, diversity_weight, entropy_boost, entropy_boost_steps)

    def forward(self, latents: Float[Tensor, "*batch latent rows columns"]) -> Quantized:
        """Replace each number of each latent by its sign."""
        indices = to_indices(latents, self.depth)
        codes = self.lookup(indices)
        loss, metrics = self.commitment_weight * F.mse_loss(latents, codes), {"perplexity": self.measure_use(indices)}
        if self.training:
            penalty, entropies = self.entropy(to_groups(4 / self.temperature * latents, self.bits))
            loss, metrics = loss + penalty / self.depth, metrics | entropies
        return Quantized(straight_through(latents, codes), indices, loss, metrics)

    def lookup(self, indices: Int[Tensor, "*batch rows columns *depth"]) -> Float[Tensor, "*batch latent rows columns"]:
        """The codes that `indices` name: -1 and 1."""
        return to_signs(indices, self.bits, self.depth)

    @torch.no_grad()
    def update(self) -> None:
        """Take note that an optimizer step is over."""
        super().update()
        self.entropy.update()
