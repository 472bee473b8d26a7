"""What every quantizer is: latents in, codes out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor, nn

from vqgan.errors import check
from vqgan.quantizers.usage import CodeUse


@dataclass
class Quantized:
    """Quantized latents."""

    latents: Float[Tensor, "*batch latent rows columns"]  # codes; gradients pass through to the encoder
    indices: Int[Tensor, "*batch rows columns *depth"]  # in [0, codebook_size); `depth` where a position has several
    loss: Float[Tensor, ""]  # its terms already weighted against each other
    metrics: dict[str, Tensor]  # detached scalars, logged as `codebook/…`; always `perplexity`, see `CodeUse.count`


class Quantizer(nn.Module, ABC):
    """Replaces each latent, a vector of `latent_dim` numbers, by one of `codebook_size` codes, or by `depth` of them.

    What learns by gradients is a Parameter, what learns without is a buffer. A table of codes (`look_up`, `nearest`)
    and the counting of their use (`CodeUse`) are parts that a quantizer may have.

    Args:
        codebook_size: codes that an index can name.
        latent_dim: numbers of a latent; whatever the encoder gives is projected to them.
        depth: codes a position.
    """

    use: CodeUse | None = None

    def __init__(self, codebook_size: int, latent_dim: int, depth: int = 1) -> None:
        check(codebook_size > 0, "codebook_size", codebook_size, "positive")
        check(latent_dim > 0, "latent_dim", latent_dim, "positive")
        check(depth > 0, "depth", depth, "positive")
        super().__init__()
        self.codebook_size, self.latent_dim, self.depth = codebook_size, latent_dim, depth

    @abstractmethod
    def forward(self, latents: Float[Tensor, "*batch latent rows columns"]) -> Quantized:
        """Replace each latent by a code; float32 in and out."""

    @abstractmethod
    def lookup(self, indices: Int[Tensor, "*batch rows columns *depth"]) -> Float[Tensor, "*batch latent rows columns"]:
        """The latents that `indices` name: the same bits as `forward` gave with them."""

    def update(self) -> None:
        """Take note that an optimizer step is over; codebooks that learn without gradients move here."""
        if self.use is not None:
            self.use.update()

    def usage(self, steps: int) -> Float[Tensor, ""] | None:
        """Share of the codes chosen within the last `steps` training steps, of at least so many; in [0, 1].

        None where that is not counted.
        """
        return None if self.use is None else self.use.share(steps)
