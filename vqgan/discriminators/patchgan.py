"""A discriminator that judges patches."""

from __future__ import annotations

import itertools
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vqgan.collectives import count_of_processes, mean_over_processes
from vqgan.errors import check
from vqgan.start import StartsFromData


class PatchGAN(nn.Module):
    """The patch discriminator of pix2pix (Isola et al. 2017, arXiv:1611.07004).

    Reference: `NLayerDiscriminator` of taming-transformers, whose parameter names (`main.0.weight` …) and
    initialisation it keeps.

    Args:
        image_channels: 3 for rgb.
        channels: width of the first layer; doubles with each layer up to eight times that.
        layers: strided layers; each doubles the side of a patch's stride.
        norm: `batch` (then inner convolutions have no bias) or `actnorm`.
    """

    def __init__(self, image_channels: int, channels: int, layers: int, norm: Literal["batch", "actnorm"]) -> None:
        check(channels > 0, "channels", channels, "positive")
        check(layers > 0, "layers", layers, "positive")
        super().__init__()
        widths = [channels * min(2**i, 8) for i in range(layers + 1)]
        parts: list[nn.Module] = [nn.Conv2d(image_channels, channels, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for i, (a, b) in enumerate(itertools.pairwise(widths), start=1):
            stride = 2 if i < layers else 1
            parts += [
                nn.Conv2d(a, b, 4, stride=stride, padding=1, bias=norm == "actnorm"),
                ActNorm(b) if norm == "actnorm" else BatchNorm(b),
                nn.LeakyReLU(0.2),
            ]
        parts.append(nn.Conv2d(widths[-1], 1, 4, padding=1))
        self.main = nn.Sequential(*parts)
        self.apply(_initialize)

    def forward(self, frames: Float[Tensor, "frames rgb height width"]) -> Float[Tensor, "frames 1 rows columns"]:
        """A logit per patch of frames in [-1, 1]."""
        return self.main(frames)


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation over the shares of all processes, as over one batch; PyTorch's own does that on GPUs only."""

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """weight · (x - mean) / √(variance + eps) + bias, in float32."""
        processes = count_of_processes()
        if processes == 1 or not self.training:
            return super().forward(x)
        mean = mean_over_processes(x.float().mean((0, 2, 3)))
        centered = x.float() - mean[:, None, None]
        variance = mean_over_processes(centered.square().mean((0, 2, 3)))
        self._remember(mean.detach(), variance.detach(), processes * x.numel() // x.shape[1])
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centered * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Move the running statistics, of which the variance is the unbiased one."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        self.num_batches_tracked += 1


class ActNorm(StartsFromData):
    """Per-channel scale and shift that start by whitening the first training batch (Glow, arXiv:1807.03039)."""

    initialized: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.scale = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.register_buffer("initialized", torch.tensor(0, dtype=torch.uint8))

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """scale · (x + loc)."""
        if self.training and not self.has_started():
            self._start_from(x)
        return self.scale * (x + self.loc)

    @torch.no_grad()
    def _start_from(self, x: Float[Tensor, "n c h w"]) -> None:
        mean = mean_over_processes(x.float().mean(dim=(0, 2, 3), keepdim=True))
        count = count_of_processes() * x.numel() // x.shape[1]
        squares = mean_over_processes((x.float() - mean).square().mean(dim=(0, 2, 3), keepdim=True))
        deviation = (squares * count / (count - 1)).sqrt()  # unbiased, as the reference
        if (deviation + mean).isfinite().all():  # else the step is skipped, and the next one is the first
            # `data`, since a skipped step's graph of the batch before, which was not finite, may hold these values.
            self.loc.data.copy_(-mean)
            self.scale.data.copy_(1 / (deviation + 1e-6))
            self.initialized.fill_(1)

    def _start_flag(self) -> Tensor:
        return self.initialized


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
