"""VQGAN's loss: pixels, perception, codebook and an adversary with an adaptive weight."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vqgan.autoencoder import AutoencoderOutput
from vqgan.errors import check
from vqgan.frames import Frames
from vqgan.losses.game import Game
from vqgan.losses.objective import (
    DiscriminatorTerm,
    Judgement,
    LatentTerm,
    Loss,
    Objective,
    ReconstructionTerm,
    Term,
)
from vqgan.runtime.collectives import mean_over_processes


class VQGANLoss(Objective):
    """The two players' losses (Esser et al. 2021, arXiv:2012.09841, equations 4 to 7), and what terms are added.

    autoencoder:    nll + λ · discriminator_weight · g + quantization_weight · quantization_loss
        nll = pixel distance + perceptual_weight · mean LPIPS
        g   = -mean D(x̂)
        λ   = ‖∂nll/∂W‖ / (‖∂g/∂W‖ + 1e-4), at most max_adaptive_weight; W is the decoder's last layer
    discriminator:  the game's, on frames and reconstruction

    Reference: `VQLPIPSWithDiscriminator` of taming-transformers' `losses/vqperceptual.py`.

    Args:
        pixel: distance of pixels.
        perceptual: distance of frames, (batch, time, rgb, height, width) twice to (batch, time); None with weight 0.
        perceptual_weight: at least 0; at 0 no perceptual network is needed or loaded.
        quantization_weight: at least 0; the `codebook_weight` of the reference.
        adversarial: the game.
        discriminator_start: the number of steps without any adversarial term or discriminator update.
        discriminator_weight: at least 0; at 0 there is no discriminator.
        max_adaptive_weight: positive; the clamp of λ.
        terms: further ones, by name.
    """

    def __init__(
        self,
        pixel: ReconstructionTerm,
        perceptual: nn.Module | None,
        perceptual_weight: float,
        quantization_weight: float,
        adversarial: Game,
        discriminator_start: int,
        discriminator_weight: float,
        max_adaptive_weight: float,
        terms: Mapping[str, Term],
    ) -> None:
        check(perceptual_weight >= 0, "perceptual_weight", perceptual_weight, "at least 0")
        check(quantization_weight >= 0, "quantization_weight", quantization_weight, "at least 0")
        check(discriminator_start >= 0, "discriminator_start", discriminator_start, "at least 0")
        check(discriminator_weight >= 0, "discriminator_weight", discriminator_weight, "at least 0")
        check(max_adaptive_weight > 0, "max_adaptive_weight", max_adaptive_weight, "positive")
        for name, term in terms.items():
            kinds = (ReconstructionTerm, LatentTerm, DiscriminatorTerm)
            check(isinstance(term, kinds), f"terms.{name}", type(term).__name__, "a term of a loss")
        super().__init__()
        self.pixel, self.perceptual, self.adversarial = pixel, perceptual, adversarial
        self.perceptual_weight, self.quantization_weight = perceptual_weight, quantization_weight
        self.discriminator_start, self.discriminator_weight = discriminator_start, discriminator_weight
        self.max_adaptive_weight = max_adaptive_weight
        self.chance, self.largest_weight = adversarial.chance, max_adaptive_weight * discriminator_weight
        self.terms = nn.ModuleDict(terms)
        named = list(terms.items())
        self.reconstruction_terms = [(name, term) for name, term in named if isinstance(term, ReconstructionTerm)]
        self.latent_terms = [(name, term) for name, term in named if isinstance(term, LatentTerm)]
        self.discriminator_terms = [(name, term) for name, term in named if isinstance(term, DiscriminatorTerm)]

    def autoencoder_loss(
        self, frames: Frames, output: AutoencoderOutput, discriminator: nn.Module | None, last_layer: Tensor, step: int
    ) -> Loss:
        """The generator's side, see `Objective`.

        The gradients of nll and g are taken once each, at the reconstruction: λ needs only the way from there through
        the last layer, and their sum goes back through the autoencoder once.
        """
        reconstruction = output.reconstruction.detach().requires_grad_()
        nll, metrics = self._reconstruction_loss(frames, reconstruction, step)
        (gradient,) = torch.autograd.grad(nll, reconstruction)
        total, logits = nll.detach(), None
        if discriminator is not None and self.is_adversarial(step):
            logits = discriminator(reconstruction)
            g = self.adversarial.generator(logits.float())
            # The graph is kept: the discriminator's own loss goes back through these logits.
            (g_gradient,) = torch.autograd.grad(g, reconstruction, retain_graph=True)
            balance = self._adaptive_weight(output.reconstruction, gradient, g_gradient, last_layer)
            weight = balance * self.discriminator_weight
            gradient = gradient + weight * g_gradient
            total = total + weight * g.detach()
            metrics |= {"train/adversarial": g.detach(), "adversarial/weight": weight}
        total = _BackwardFrom.apply(output.reconstruction, total, gradient)
        total = total + self.quantization_weight * output.quantized.loss
        metrics["train/quantization"] = output.quantized.loss.detach()
        for name, term in self.latent_terms:
            value = term(output.quantized, step)
            total = total + term.weight * value
            metrics[f"train/{name}"] = value.detach()
        return Loss(total, metrics, logits)

    def discriminator_loss(
        self, frames: Frames, reconstruction: Frames, discriminator: nn.Module, step: int, logits: Tensor | None = None
    ) -> Loss:
        """The discriminator's side, see `Objective`."""
        reconstruction = reconstruction.detach()
        fake = (discriminator(reconstruction) if logits is None else logits).float()
        real = discriminator(frames).float()
        total = self.adversarial.discriminator(real, fake)
        metrics = {"adversarial/logits_real": real.detach().mean(), "adversarial/logits_fake": fake.detach().mean()}
        for name, term in self.discriminator_terms:
            value = term(discriminator, Judgement(frames, reconstruction, real, fake), step)
            total = total + term.weight * value
            metrics[f"adversarial/{name}"] = value.detach()
        return Loss(total, metrics)

    def _reconstruction_loss(
        self, frames: Frames, reconstruction: Frames, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        distance = self.pixel(frames, reconstruction, step)
        nll, metrics = self.pixel.weight * distance, {"train/pixel": distance.detach()}
        if self.perceptual is not None and self.perceptual_weight > 0:
            distance = self.perceptual(reconstruction, frames).mean()
            nll, metrics["train/perceptual"] = nll + self.perceptual_weight * distance, distance.detach()
        for name, term in self.reconstruction_terms:
            distance = term(frames, reconstruction, step)
            nll, metrics[f"train/{name}"] = nll + term.weight * distance, distance.detach()
        return nll, metrics

    def _adaptive_weight(self, reconstruction: Frames, nll: Frames, g: Frames, last_layer: Tensor) -> Tensor:
        """λ from the gradients of nll and g at the reconstruction (equation 7)."""
        gradients = [
            torch.autograd.grad(reconstruction, last_layer, gradient, retain_graph=True)[0].float()
            for gradient in (nll, g)
        ]
        # Of the whole batch: the norm of the mean, not the mean of the norms of each process's share.
        norms = [gradient.norm() for gradient in mean_over_processes(torch.stack(gradients))]
        return (norms[0] / (norms[1] + 1e-4)).clamp(0.0, self.max_adaptive_weight)


class _BackwardFrom(torch.autograd.Function):
    """A loss whose gradient at the reconstruction is already known."""

    @staticmethod
    def forward(ctx: Any, reconstruction: Tensor, loss: Tensor, gradient: Tensor) -> Tensor:  # noqa: ARG004
        ctx.save_for_backward(gradient)
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return outer[0] * gradient, None, None
