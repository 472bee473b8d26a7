import torch
from torch import Tensor

from vqgan.quantizers import Quantized, Quantizer
from vqgan.quantizers.assignment import straight_through


class Pairs(Quantizer):
    """Two codes a position, each of which quantizes half of the channels with a quantizer of its own."""

    def __init__(self, first: Quantizer, second: Quantizer) -> None:
        super().__init__(first.codebook_size, first.latent_dim + second.latent_dim, depth=2)
        self.halves = torch.nn.ModuleList([first, second])

    def forward(self, latents: Tensor) -> Quantized:
        parts = [half(part) for half, part in zip(self.halves, latents.chunk(2, -3))]
        codes = torch.cat([part.latents.detach() for part in parts], -3)
        indices = torch.stack([part.indices for part in parts], -1)
        perplexity = torch.stack([part.metrics["perplexity"] for part in parts]).log().mean().exp()
        loss = parts[0].loss + parts[1].loss
        return Quantized(straight_through(latents, codes), indices, loss, {"perplexity": perplexity})

    def lookup(self, indices: Tensor) -> Tensor:
        return torch.cat([half.lookup(part) for half, part in zip(self.halves, indices.unbind(-1))], -3)

    def update(self) -> None:
        for half in self.halves:
            half.update()
