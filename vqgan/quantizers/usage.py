"""How well the codes are used."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def perplexity(counts: Int[Tensor, "codes"]) -> Float[Tensor, ""]:
    """exp of the entropy of code use: between 1 and the number of codes."""
    shares = counts.float() / counts.sum()
    return torch.exp(torch.special.entr(shares).sum())


def count_codes(indices: Int[Tensor, "..."], codebook_size: int) -> Int[Tensor, "codes"]:
    """How often each code was chosen. (`bincount` would make a GPU wait: its result's size depends on the values.)"""
    flat = indices.flatten()
    return torch.zeros(codebook_size, dtype=torch.int64, device=flat.device).index_add_(0, flat, torch.ones_like(flat))
