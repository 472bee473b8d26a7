"""What every quantizer is: latents in, codes out, with how well the codebook is used."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from vqgan.collectives import sum_over_processes
from vqgan.errors import check

# Codes, and distances to them, that are held at once, whatever there is of latents and codes: on a CPU what its caches
# hold, elsewhere what keeps the device busy (in float32 64 MiB of distances, and as much again of products).
ON_CPU, ELSEWHERE = (2**10, 2**20), (2**14, 2**24)


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


def perplexity(counts: Int[Tensor, "codes"]) -> Float[Tensor, ""]:
    """exp of the entropy of code use: between 1 and the number of codes."""
    shares = counts.float() / counts.sum()
    return torch.exp(torch.special.entr(shares).sum())


def count_codes(indices: Int[Tensor, "..."], codebook_size: int) -> Int[Tensor, "codes"]:
    """How often each code was chosen. (`bincount` would make a GPU wait: its result's size depends on the values.)"""
    flat = indices.flatten()
    return torch.zeros(codebook_size, dtype=torch.int64, device=flat.device).index_add_(0, flat, torch.ones_like(flat))


def nearest(latents: Float[Tensor, "n latent"], codebook: Float[Tensor, "codes latent"]) -> Int[Tensor, "n"]:
    """Index of the nearest code of each latent (squared Euclidean distance; the lowest index wins a tie).

    The matrix of all distances never exists: latents are taken in groups, and a large codebook in parts.
    """
    codes_at_once, distances_at_once = ON_CPU if codebook.device.type == "cpu" else ELSEWHERE
    parts = [(codes, codes.square().sum(1)) for codes in codebook.split(codes_at_once)]
    found = []
    for z in latents.split(distances_at_once // codes_at_once):
        z_norms = z.square().sum(1, keepdim=True)
        # |z - e|² = |z|² + |e|² - 2 z·e, in the reference's order of summation
        nearest_of_parts = [(z_norms + norms).sub_(z @ codes.T, alpha=2).min(1) for codes, norms in parts]
        # The first of equals is taken, in each part and here.
        _, part = torch.stack([best.values for best in nearest_of_parts]).min(0)
        within = torch.stack([best.indices for best in nearest_of_parts]).gather(0, part[None])[0]
        found.append(part * codes_at_once + within)
    return torch.cat(found)


def straight_through(latents: Tensor, codes: Tensor) -> Tensor:
    """`codes` going forward, to the last bit, and the gradient of `latents` going back."""
    return codes.detach() + (latents - latents.detach())
