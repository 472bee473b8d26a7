"""The step as the reference's loop takes it, written down plainly, on the same networks and weights as ours.

Two optimizers, each with a forward pass of its own; one backward pass through everything for each gradient that the
adaptive weight needs, and one more for the sum; the whole matrix of distances; one-hot sums; no compiled, fused or
channels-last anything; float32.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vqgan.backbones.blocks import AttentionBlock, Upsample
from vqgan.quantizers import EMAQuantizer, Quantized, VectorQuantizer
from vqgan.quantizers.assignment import straight_through
from vqgan.training.trainer import Trainer


class Textbook:
    """A copy of a trainer's networks, and the reference's step on them."""

    def __init__(self, trainer: Trainer) -> None:
        assert trainer.discriminator is not None
        self.settings, self.loss = trainer.settings, trainer.loss
        self.autoencoder = copy.deepcopy(trainer.autoencoder).to(memory_format=torch.contiguous_format)
        self.discriminator = copy.deepcopy(trainer.discriminator).to(memory_format=torch.contiguous_format)
        for module in self.autoencoder.modules():
            module.__class__ = PLAIN.get(type(module), type(module))
        self.optimizers = [
            torch.optim.Adam(network.parameters(), lr=1e-4, betas=(0.5, 0.9))
            for network in (self.autoencoder, self.discriminator)
        ]

    def step(self, frames: Tensor) -> None:
        """One step of both players; frames in [-1, 1], (batch, time, rgb, height, width)."""
        self.discriminator.requires_grad_(False)
        output = self.autoencoder(frames)
        reconstruction = output.reconstruction
        nll = (frames - reconstruction).abs().mean()
        if self.loss.perceptual is not None:
            nll = nll + self.loss.perceptual_weight * self.loss.perceptual(frames, reconstruction).mean()
        g = -self.discriminator(reconstruction).mean()
        last = self.autoencoder.last_layer
        norms = [torch.autograd.grad(term, last, retain_graph=True)[0].norm() for term in (nll, g)]
        weight = (norms[0] / (norms[1] + 1e-4)).clamp(0, 1e4).detach() * self.loss.discriminator_weight
        self._update(nll + weight * g + self.loss.quantization_weight * output.quantization_loss, 0)
        self.discriminator.requires_grad_(True)

        self.autoencoder.requires_grad_(False)
        reconstruction = self.autoencoder(frames).reconstruction.detach()
        real, fake = self.discriminator(frames), self.discriminator(reconstruction)
        self._update(0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean()), 1)
        self.autoencoder.requires_grad_(True)

    def _update(self, total: Tensor, player: int) -> None:
        self.optimizers[player].zero_grad()
        total.backward()
        self.optimizers[player].step()


class PlainUpsample(Upsample):
    """Repeat, then convolve."""

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` at twice its sides."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class PlainAttention(AttentionBlock):
    """The whole matrix of attention."""

    def forward(self, x: Tensor) -> Tensor:
        """Add to each position what it attends to."""
        h = self.norm(x)
        q, k, v = (rearrange(project(h), "n c h w -> n c (h w)") for project in (self.q, self.k, self.v))
        weights = torch.softmax(q.transpose(1, 2) @ k * q.shape[1] ** -0.5, dim=2)
        return x + self.proj_out((v @ weights.transpose(1, 2)).view_as(x))


def whole_matrix(latents: Tensor, codebook: Tensor) -> Tensor:
    """Indices of the nearest codes, by all distances at once; latents (n, latent)."""
    squares = latents.square().sum(1, keepdim=True) + codebook.square().sum(1)
    return (squares - 2 * latents @ codebook.T).argmin(1)


class PlainVectorQuantizer(VectorQuantizer):
    """A codebook that learns by gradients."""

    def forward(self, latents: Tensor) -> Quantized:
        """Replace each latent by its nearest code."""
        flat = rearrange(latents, "... c h w -> (... h w) c")
        indices = whole_matrix(flat, self.codebook).view(*latents.shape[:-3], *latents.shape[-2:])
        codes = self.lookup(indices)
        codebook_loss, commitment_loss = F.mse_loss(codes, latents.detach()), F.mse_loss(latents, codes.detach())
        loss = self.codebook_weight * codebook_loss + self.commitment_weight * commitment_loss
        return Quantized(straight_through(latents, codes), indices, loss, {"perplexity": self.use.count(indices)})


class PlainEMAQuantizer(EMAQuantizer):
    """A codebook that follows its latents, by one-hot sums, twice a step as in the reference's loop."""

    def forward(self, latents: Tensor) -> Quantized:
        """Replace each latent by its nearest code, and move the codes."""
        flat = rearrange(latents.detach(), "... c h w -> (... h w) c")
        chosen = whole_matrix(flat, self.codebook)
        indices = chosen.view(*latents.shape[:-3], *latents.shape[-2:])
        codes = self.lookup(indices)
        loss = self.commitment_weight * F.mse_loss(latents, codes.detach())
        one_hot = F.one_hot(chosen, self.codebook_size).float()
        self.cluster_sizes.mul_(self.decay).add_(one_hot.sum(0), alpha=1 - self.decay)
        self.cluster_sums.mul_(self.decay).add_(one_hot.T @ flat, alpha=1 - self.decay)
        total = self.cluster_sizes.sum()
        smoothed = (self.cluster_sizes + self.eps) / (total + self.codebook_size * self.eps) * total
        self.codebook.copy_(self.cluster_sums / smoothed[:, None])
        return Quantized(straight_through(latents, codes), indices, loss, {"perplexity": self.use.count(indices)})


PLAIN: dict[type[nn.Module], type[nn.Module]] = {
    Upsample: PlainUpsample,
    AttentionBlock: PlainAttention,
    VectorQuantizer: PlainVectorQuantizer,
    EMAQuantizer: PlainEMAQuantizer,
}
