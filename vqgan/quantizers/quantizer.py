"""What every quantizer is: latents in, codes out, with how well the codebook is used."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from vqgan.errors import check
from vqgan.quantizers.usage import count_codes, perplexity
from vqgan.runtime.collectives import sum_over_processes


@dataclass
class Quantized:
    """Quantized latents."""

    latents: Float[Tensor, "frames latent rows columns"]  # codes; gradients pass straight through to the encoder
    indices: Int[Tensor, "frames rows columns"]  # in [0, codebook_size)
    loss: Float[Tensor, ""]
    perplexity: Float[Tensor, ""]  # exp(entropy of code use): 1 = one code, codebook_size = all alike


class Quantizer(nn.Module, ABC):
    """A codebook of `codebook_size` vectors of `latent_dim` numbers.

    `forward` in training mode counts which codes are chosen; `update` is called once per optimizer step. Between
    them `idle` knows for each code how many steps ago it was last chosen.
    """

    codebook: Tensor  # (codebook_size, latent_dim): a Parameter where gradients move it, else a buffer
    idle: Int[Tensor, "codes"]
    chosen: Int[Tensor, "codes"]

    def __init__(self, codebook_size: int, latent_dim: int) -> None:
        check(codebook_size > 0, "codebook_size", codebook_size, "positive")
        check(latent_dim > 0, "latent_dim", latent_dim, "positive")
        super().__init__()
        self.codebook_size, self.latent_dim = codebook_size, latent_dim
        self.register_buffer("idle", torch.zeros(codebook_size, dtype=torch.int64))
        # Always zero between steps, so a checkpoint need not hold it.
        self.register_buffer("chosen", torch.zeros(codebook_size, dtype=torch.int64), persistent=False)

    @abstractmethod
    def forward(self, latents: Float[Tensor, "frames latent rows columns"]) -> Quantized:
        """Replace each latent by a code."""

    def lookup(self, indices: Int[Tensor, "frames rows columns"]) -> Float[Tensor, "frames latent rows columns"]:
        """The codes that `indices` name."""
        return rearrange(self.codebook[indices], "n h w c -> n c h w")

    def update(self) -> None:
        """Take note that an optimizer step is over; codebooks that learn without gradients move here."""
        self.idle.copy_(torch.where(self.chosen > 0, 0, self.idle + 1))
        self.chosen.zero_()

    def usage(self, steps: int) -> Float[Tensor, ""]:
        """Share of the codes chosen within the last `steps` training steps, of at least so many; in [0, 1]."""
        return (self.idle < steps).float().mean()

    def count(self, indices: Int[Tensor, "..."]) -> Float[Tensor, ""]:
        """Measure the perplexity of a batch, and in training, of all processes', remember which codes it chose."""
        counts = count_codes(indices, self.codebook_size)
        if self.training:
            counts = sum_over_processes(counts)
            self.chosen += counts
        return perplexity(counts)
