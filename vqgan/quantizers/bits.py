"""Codes of signs: an index is a binary number, each bit of which is the sign of one number of a latent."""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from vqgan.errors import check
from vqgan.runtime.collectives import mean_over_processes


def bits_of(codebook_size: int, most: int) -> int:
    """Bits of an index; `most` is how many are possible."""
    bits = codebook_size.bit_length() - 1
    check(0 < bits <= most and codebook_size == 2**bits, "codebook_size", codebook_size, f"a power of 2 up to 2^{most}")
    return bits


def to_indices(latents: Float[Tensor, "*batch latent rows columns"], depth: int) -> Int[Tensor, "*batch r c *depth"]:
    """The indices of the codes with the latents' signs, `depth` of them where a position has several.

    Bit i of an index is 1 where the number i of its share of the latent is positive: 0, and what is not a number, is
    taken for negative.
    """
    positive = rearrange(latents > 0, "... (depth bits) r c -> ... r c depth bits", depth=depth)
    indices = (positive * _places(positive.shape[-1], latents.device)).sum(-1)
    return indices if depth > 1 else indices.squeeze(-1)


def to_signs(indices: Int[Tensor, "*batch r c *depth"], bits: int, depth: int) -> Float[Tensor, "*batch latent r c"]:
    """-1 and 1 for each bit of indices, the inverse of `to_indices`."""
    apart = indices if depth > 1 else indices[..., None]
    positive = apart[..., None] // _places(bits, indices.device) % 2
    return rearrange(2.0 * positive - 1.0, "... r c depth bits -> ... (depth bits) r c")


def _places(bits: int, device: torch.device) -> Int[Tensor, "bits"]:
    """2^i; not by shifts, which ONNX has for unsigned numbers alone."""
    return 2 ** torch.arange(bits, device=device)


def to_groups(logits: Float[Tensor, "*batch latent r c"], bits: int) -> Float[Tensor, "n groups bits"]:
    """Positions one below the other, each with its bits in groups of so many."""
    return rearrange(logits, "... (groups bits) r c -> (... r c) groups bits", bits=bits)


def sample_entropy(logits: Float[Tensor, "n groups bits"]) -> Float[Tensor, ""]:
    """The mean over n of the entropy of their bits, in nats; a bit is 1 with the probability sigmoid(logit).

    Bits of one latent are independent, so this is exactly the entropy of its distribution over all codes.
    """
    size = logits.abs()  # else it is a small difference of large numbers
    return (nn.functional.softplus(-size) + size * torch.sigmoid(-size)).sum((1, 2)).mean()


def mean_probabilities(logits: Float[Tensor, "n groups bits"]) -> Float[Tensor, "groups codes"]:
    """The mean over n of the distribution of each group over its codes, whose bits are independent for each n.

    A code's probability is the product of that of its lower half of bits and that of its upper half, so that the mean
    over n of all codes' is one product of two small matrices: of 2^18 codes 2 · n · 512 numbers instead of n · 2^18.
    """
    half = logits.shape[2] // 2
    low, high = _products(logits[..., :half]), _products(logits[..., half:])
    return torch.einsum("ngh,ngl->ghl", high, low).flatten(1) / len(logits)


def _products(logits: Float[Tensor, "n groups bits"]) -> Float[Tensor, "n groups codes"]:
    """The probability of each combination of bits, the first of which counts least."""
    products = logits.new_ones(*logits.shape[:2], 1)
    for negative, positive in zip(torch.sigmoid(-logits).unbind(-1), torch.sigmoid(logits).unbind(-1)):
        products = torch.cat([products * negative[..., None], products * positive[..., None]], -1)
    return products


def entropies(probabilities: Float[Tensor, "groups codes"]) -> Float[Tensor, "groups"]:
    """The entropy of each row, in nats; of a probability of 0 the gradient is finite too."""
    tiny = torch.finfo(probabilities.dtype).tiny
    return -(probabilities * probabilities.clamp(min=tiny).log()).sum(1)


class EntropyPenalty(nn.Module):
    """What makes each latent sure of its bits, and all of them together use all codes.

    weight · factor · (E_n H(p_n) - diversity_weight · Σ_g H(E_n p_n,g))

    p_n is a latent's distribution over codes, E_n the mean over the batch, in training of all processes. Entropies, in
    nats, are of a position: sums over its groups of bits, each of which has a mean of its own, since if they had one
    together, one group could collapse and another make up for it. The batch's entropy is at most ln n + E_n H(p_n): of
    many more codes than latents it sees little, and smaller groups see more (their sum is at least the entropy of all
    their bits together).

    factor falls from `boost` to 1, in a straight line over `boost_steps` (Weber et al. 2024, arXiv:2409.16211, 3 over
    2000 steps).

    Args:
        weight: at least 0.
        diversity_weight: at least 0.
        boost: at least 0; 1 for no change.
        boost_steps: at least 1.
    """

    steps: Int[Tensor, ""]

    def __init__(self, weight: float, diversity_weight: float, boost: float, boost_steps: int) -> None:
        check(weight >= 0, "entropy_weight", weight, "at least 0")
        check(diversity_weight >= 0, "diversity_weight", diversity_weight, "at least 0")
        check(boost >= 0, "entropy_boost", boost, "at least 0")
        check(boost_steps >= 1, "entropy_boost_steps", boost_steps, "at least 1")
        super().__init__()
        self.weight, self.diversity_weight, self.boost, self.boost_steps = weight, diversity_weight, boost, boost_steps
        self.register_buffer("steps", torch.tensor(0))

    def forward(self, logits: Float[Tensor, "n groups bits"]) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """The penalty, and both entropies, of the logits of each bit's being 1."""
        sample = sample_entropy(logits)
        batch = entropies(mean_over_processes(mean_probabilities(logits))).sum()
        penalty = self.weight * self.factor() * (sample - self.diversity_weight * batch)
        return penalty, {"sample_entropy": sample.detach(), "batch_entropy": batch.detach()}

    def factor(self) -> Float[Tensor, ""]:
        """What the weight is multiplied by in this step."""
        return 1 + (self.boost - 1) * (1 - self.steps / self.boost_steps).clamp(min=0)

    def update(self) -> None:
        """Take note that an optimizer step is over."""
        self.steps += 1
