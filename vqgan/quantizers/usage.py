"""How well the codes are used."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vqgan.runtime.collectives import sum_over_processes

MOST_COUNTED = 2**24  # codes whose choices are counted one by one in an evaluation
ENOUGH = 0.95  # of the codes that there are latents for: of fewer it is said beside the usage


class CodeUse:
    """Counts which codes are chosen, and knows for each how many training steps ago it last was.

    Its buffers are the owner's, by which they are saved, moved to a device, and undone by a step that is skipped:
    `idle`, and `chosen`, the choices since the last `update`.

    Args:
        owner: the quantizer; in training mode what it chooses is counted.
        codes: how many there are.
    """

    def __init__(self, owner: nn.Module, codes: int) -> None:
        self.owner, self.codes = owner, codes
        owner.register_buffer("idle", torch.zeros(codes, dtype=torch.int64))
        # Always zero between steps, so a checkpoint need not hold it.
        owner.register_buffer("chosen", torch.zeros(codes, dtype=torch.int64), persistent=False)

    @property
    def idle(self) -> Int[Tensor, "codes"]:
        """How many training steps ago each code was last chosen."""
        return self.owner.get_buffer("idle")

    @property
    def chosen(self) -> Int[Tensor, "codes"]:
        """How often each code was chosen since the last `update`."""
        return self.owner.get_buffer("chosen")

    def count(self, indices: Int[Tensor, "..."]) -> Float[Tensor, ""]:
        """Measure the perplexity of a batch, and in training, of all processes', remember which codes it chose."""
        counts = count_codes(indices, self.codes)
        if self.owner.training:
            counts = sum_over_processes(counts)
            self.chosen.add_(counts)
        return perplexity(counts)

    def update(self) -> None:
        """Take note that an optimizer step is over."""
        self.idle.copy_(torch.where(self.chosen > 0, 0, self.idle + 1))
        self.chosen.zero_()

    def share(self, steps: int) -> Float[Tensor, ""]:
        """Share of the codes chosen within the last `steps` training steps, of at least so many; in [0, 1]."""
        return (self.idle < steps).float().mean()


def perplexity(counts: Int[Tensor, "codes"]) -> Float[Tensor, ""]:
    """exp of the entropy of code use: between 1 and the number of codes."""
    shares = counts.float() / counts.sum()
    return torch.exp(torch.special.entr(shares).sum())


def touched(latents: float, codes: int) -> float:
    """Share of the codes that so many latents choose at all if they choose evenly: 1 - (1 - 1 / codes)^latents.

    A codebook may be used fully, and a few latents still show little of it: usage is read beside this number.
    """
    return 1.0 if codes == 1 else -math.expm1(latents * math.log1p(-1 / codes))


def count_codes(indices: Int[Tensor, "..."], codebook_size: int) -> Int[Tensor, "codes"]:
    """How often each code was chosen. (`bincount` would make a GPU wait: its result's size depends on the values.)"""
    flat = indices.flatten()
    return torch.zeros(codebook_size, dtype=torch.int64, device=flat.device).index_add_(0, flat, torch.ones_like(flat))


def count_by_depth(
    indices: Int[Tensor, "*batch rows columns *depth"], codebook_size: int, depth: int
) -> Int[Tensor, "depth codes"]:
    """How often each code was chosen, for each of the `depth` codes of a position apart."""
    return torch.stack([count_codes(part, codebook_size) for part in indices.reshape(-1, depth).unbind(1)])
