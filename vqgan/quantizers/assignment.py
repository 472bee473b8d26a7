"""Which code of a table a latent becomes, and how gradients pass it."""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

# Codes, and distances to them, that are held at once, whatever there is of latents and codes: on a CPU what its caches
# hold, elsewhere what keeps the device busy (in float32 64 MiB of distances, and as much again of products).
ON_CPU, ELSEWHERE = (2**10, 2**20), (2**14, 2**24)


def nearest(latents: Float[Tensor, "n latent"], codebook: Float[Tensor, "codes latent"]) -> Int[Tensor, "n"]:
    """Index of the nearest code of each latent (squared Euclidean distance; the lowest index wins a tie).

    The matrix of all distances never exists: latents are taken in groups, and a large codebook in parts.
    """
    codes_at_once, distances_at_once = ON_CPU if codebook.device.type == "cpu" else ELSEWHERE
    parts = [(codes, codes.square().sum(1)) for codes in codebook.split(codes_at_once)]
    found = []
    # A graph that is exported has no loop over a number of latents that it does not know.
    whole = torch.compiler.is_exporting()
    for z in [latents] if whole else latents.split(distances_at_once // codes_at_once):
        z_norms = z.square().sum(1, keepdim=True)
        # |z - e|² = |z|² + |e|² - 2 z·e, in the reference's order of summation
        nearest_of_parts = [(z_norms + norms).sub_(z @ codes.T, alpha=2).min(1) for codes, norms in parts]
        # The first of equals is taken, in each part and here.
        _, part = torch.stack([best.values for best in nearest_of_parts]).min(0)
        within = torch.stack([best.indices for best in nearest_of_parts]).gather(0, part[None])[0]
        found.append(part * codes_at_once + within)
    return torch.cat(found)


def to_vectors(latents: Float[Tensor, "*batch latent rows columns"]) -> Float[Tensor, "n latent"]:
    """Latents one below the other, as they are compared with codes."""
    return rearrange(latents, "... c h w -> (... h w) c")


def to_grid(
    indices: Int[Tensor, "n"], latents: Float[Tensor, "*batch latent rows columns"]
) -> Int[Tensor, "*batch rows columns"]:
    """The indices of `to_vectors(latents)` at the places of the latents."""
    return indices.view(*latents.shape[:-3], *latents.shape[-2:])


def look_up(
    codebook: Float[Tensor, "codes latent"], indices: Int[Tensor, "*batch rows columns"]
) -> Float[Tensor, "*batch latent rows columns"]:
    """The codes that indices name."""
    return rearrange(codebook[indices], "... h w c -> ... c h w")


def straight_through(latents: Tensor, codes: Tensor) -> Tensor:
    """`codes` going forward, to the last bit, and the gradient of `latents` going back."""
    # Not latents + (codes - latents).detach(), the usual way to write it: that rounds, and codes come out changed.
    return codes.detach() + (latents - latents.detach())
