import torch
from torch import Tensor

from vqgan.losses import LatentTerm
from vqgan.quantizers import Quantized
from vqgan.runtime.collectives import mean_over_processes


class Drift(LatentTerm):
    """Keeps the mean of the codes near where it was: a term that remembers."""

    mean: Tensor

    def __init__(self, weight: float, decay: float) -> None:
        super().__init__(weight)
        self.decay = decay
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, quantized: Quantized, step: int) -> Tensor:
        now = mean_over_processes(quantized.latents.mean())
        value = (now - self.mean).square()
        self.mean.lerp_(now.detach(), 1 - self.decay)
        return value
