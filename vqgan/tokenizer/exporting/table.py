"""The table of codes that is all that the reference's networks know of a quantizer, where one can be replaced by it."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from vqgan.autoencoder import Autoencoder
from vqgan.errors import ConfigError
from vqgan.quantizers.assignment import nearest

MOST_CODES = 2**20  # of a table that is written out
TRIED = 2**12  # random latents


@torch.no_grad()
def table_of(tokenizer: Autoencoder, who: str) -> Float[Tensor, "codes latent"]:
    """All codes of a quantizer that takes, for each latent, the nearest of them.

    Tried, not looked up in a list: quantizers of directions or of signs are of that kind too, some others only nearly.

    Args:
        tokenizer: whose.
        who: is to use it, for the message.

    Raises:
        ConfigError: it is not of that kind.
    """
    quantizer, name = tokenizer.quantizer, type(tokenizer.quantizer).__name__
    if quantizer.depth > 1:
        raise ConfigError(f"{name} has {quantizer.depth} codes a position, and {who} knows one.")
    if quantizer.codebook_size > MOST_CODES:
        raise ConfigError(f"{name} has {quantizer.codebook_size} codes: too many for a table, which {who} needs.")
    table = quantizer.lookup(torch.arange(quantizer.codebook_size)[None, None])[0, :, 0].T.contiguous()
    draw = torch.Generator().manual_seed(0)
    latents = torch.randn(TRIED, table.shape[1], generator=draw) * float(table.std(correction=0))
    latents = latents * torch.logspace(-2, 1, TRIED)[:, None]
    found = quantizer(latents.T[None, :, :, None]).indices.flatten()
    expected = nearest(latents, table)
    other = found != expected
    gaps = (latents - table[found]).square().sum(1) - (latents - table[expected]).square().sum(1)
    is_tie = gaps <= 1e-5 * (latents.square().sum(1) + table[expected].square().sum(1))
    if bool((other & ~is_tie).any()):
        raise ConfigError(f"{name} does not take the nearest code of a table, and {who} knows nothing else.")
    return table
