"""What quantizers of several codes a position share."""

from __future__ import annotations

import copy
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vqgan.quantizers.quantizer import Quantized, Quantizer


class Compound(Quantizer):
    """Each latent becomes the codes of `count` quantizers, one after the other in the last dimension of the indices.

    They are one quantizer that is asked `count` times, or copies of it that begin alike; they count the use of codes.

    Args:
        base: the quantizer; where it has several codes a position itself, there are so many times `count`.
        count: at least 2.
        shared: whether all are one.
        latent_dim: numbers of a latent.
    """

    def __init__(self, base: Quantizer, count: int, shared: bool, latent_dim: int) -> None:
        super().__init__(base.codebook_size, latent_dim, count * base.depth)
        self.count = count
        self.bases = nn.ModuleList([base, *(copy.deepcopy(base) for _ in range(0 if shared else count - 1))])

    def base(self, number: int) -> Quantizer:
        """The quantizer of that number, below `count`."""
        return cast(Quantizer, self.bases[number % len(self.bases)])

    def update(self) -> None:
        """Take note that an optimizer step is over: once for each quantizer, however often it was asked."""
        for base in self.bases:
            cast(Quantizer, base).update()

    def usage(self, steps: int) -> Float[Tensor, ""] | None:
        """The mean of the quantizers' shares; None where one does not count."""
        shares = [cast(Quantizer, base).usage(steps) for base in self.bases]
        known = [share for share in shares if share is not None]
        return torch.stack(known).mean() if len(known) == len(shares) else None

    def join(self, latents: Float[Tensor, "*batch latent rows columns"], parts: list[Quantized]) -> Quantized:
        """The whole of which the parts are; loss and metrics are means, that of perplexities the geometric one."""
        indices = torch.cat([part.indices.reshape(*latents.shape[:-3], *latents.shape[-2:], -1) for part in parts], -1)
        metrics = {name: torch.stack([part.metrics[name] for part in parts]).mean() for name in parts[0].metrics}
        metrics["perplexity"] = torch.stack([part.metrics["perplexity"] for part in parts]).log().mean().exp()
        return Quantized(latents, indices, torch.stack([part.loss for part in parts]).mean(), metrics)

    def split(self, indices: Int[Tensor, "*batch rows columns depth"]) -> list[Tensor]:
        """The indices of each part, as its quantizer gave them."""
        parts = indices.split(self.depth // self.count, -1)
        return [part.squeeze(-1) if part.shape[-1] == 1 else part for part in parts]
