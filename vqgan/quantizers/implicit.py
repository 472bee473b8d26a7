"""Codes that are computed from their indices, not stored; how well they are used, however many there are."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vqgan.quantizers.quantizer import Quantizer
from vqgan.quantizers.usage import CodeUse
from vqgan.runtime.collectives import count_of_processes, rows_over_processes

# Codes that are counted one by one. Their table is as large as they are many, and is summed over processes in each
# forward pass: 8 MiB here.
MOST_REMEMBERED = 2**20


class ImplicitQuantizer(Quantizer):
    """A quantizer without a table of codes; of more than 2^20 codes none remembers when it was last chosen.

    Args:
        codebook_size: codes that an index can name.
        latent_dim: numbers of a latent.
        depth: codes a position.
    """

    def __init__(self, codebook_size: int, latent_dim: int, depth: int = 1) -> None:
        super().__init__(codebook_size, latent_dim, depth)
        if codebook_size * depth <= MOST_REMEMBERED:
            self.use = CodeUse(self, codebook_size * depth)

    def measure_use(self, indices: Int[Tensor, "*batch rows columns *depth"]) -> Float[Tensor, ""]:
        """The perplexity of a batch, in training of all processes': exp of the entropy of its codes' shares.

        Of several codes a position the geometric mean. It is exact at any number of codes, but a batch of n positions
        cannot show more than n.
        """
        if self.use is None:
            flat = indices.reshape(-1, self.depth)
            if self.training:
                everywhere = torch.arange(len(flat) * count_of_processes(), device=flat.device)
                flat = rows_over_processes(flat, everywhere)
            return perplexity_by_sorting(flat)
        if self.depth > 1:
            indices = indices + torch.arange(self.depth, device=indices.device) * self.codebook_size
        # Each of the codes of a position has the same share of all choices: together they are `depth` times as many.
        return self.use.count(indices) / self.depth


def perplexity_by_sorting(indices: Int[Tensor, "n depth"]) -> Float[Tensor, ""]:
    """exp of the mean over columns of the entropy of their values' shares, without a table of all possible values."""
    ordered = indices.sort(0).values
    # Equal values stand together: the number of each value's run counts it, and nothing has to be known of the values.
    is_next = torch.cat([torch.zeros_like(ordered[:1]), (ordered[1:] != ordered[:-1]).long()])
    counts = torch.zeros_like(ordered).scatter_add_(0, is_next.cumsum(0), torch.ones_like(ordered))
    return torch.special.entr(counts.float() / len(indices)).sum(0).mean().exp()
