import torch
from torch import Tensor

from vqgan.quantizers import CodeUse, Quantized, Quantizer
from vqgan.quantizers.assignment import straight_through


class Signs(Quantizer):
    """A bit for each channel of a latent, its sign: no table."""

    def __init__(self, latent_dim: int) -> None:
        super().__init__(codebook_size=2**latent_dim, latent_dim=latent_dim)
        self.use = CodeUse(self, self.codebook_size)

    def forward(self, latents: Tensor) -> Quantized:
        indices = torch.stack([(bit > 0).long() << i for i, bit in enumerate(latents.unbind(-3))]).sum(0)
        codes = self.lookup(indices)
        loss = (latents - codes).square().mean()
        return Quantized(straight_through(latents, codes), indices, loss, {"perplexity": self.use.count(indices)})

    def lookup(self, indices: Tensor) -> Tensor:
        return torch.stack([(indices >> i & 1) * 2.0 - 1.0 for i in range(self.latent_dim)], dim=-3)
