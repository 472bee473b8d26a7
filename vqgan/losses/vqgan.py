"""VQGAN's loss: pixels, perception, codebook and an adversary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vqgan.autoencoder import AutoencoderOutput
from vqgan.errors import check
from vqgan.frames import Frames
from vqgan.losses.balance import Balance
from vqgan.losses.game import Game
from vqgan.losses.objective import (
    DiscriminatorTerm,
    FeatureTerm,
    Judgement,
    LatentTerm,
    Loss,
    Objective,
    ReconstructionTerm,
    Term,
)
from vqgan.losses.perceptual import Perceptual
from vqgan.runtime.collectives import broadcast_tensor


class VQGANLoss(Objective):
    """The two players' losses (Esser et al. 2021, arXiv:2012.09841, equations 4 to 7), and what terms are added.

    autoencoder:    nll + λ · ramp · discriminator_weight · g + quantization_weight · quantization_loss
        nll  = pixel distance + perceptual_weight · mean LPIPS
        g    = -mean D(x̂), or what else the game says
        λ    = the balance: adaptive or fixed
        ramp = min(1, (n + 1) / discriminator_ramp) in the n-th step with an adversarial term, counted from 0
    discriminator:  the game's, on frames and reconstruction

    Reference: `VQLPIPSWithDiscriminator` of taming-transformers' `losses/vqperceptual.py`.

    Args:
        pixel: distance of pixels.
        perceptual: distance of frames, (batch, time, rgb, height, width) twice to (batch, time); None with weight 0.
        perceptual_weight: at least 0; at 0 no perceptual network is needed or loaded.
        perceptual_frames: of each clip so many frames, drawn anew in each step, are compared perceptually, and by terms
            that look through that network; null for all. What is looked at in a step depends on the seed and the step.
        quantization_weight: at least 0; the `codebook_weight` of the reference.
        adversarial: the game.
        balance: the factor of the adversarial term beside its weight.
        discriminator_start: the number of steps without any adversarial term or discriminator update.
        discriminator_weight: at least 0; at 0 there is no discriminator.
        discriminator_warmup: the number of steps from `discriminator_start` on in which the discriminator learns alone:
            its first gradients, of a network that knows nothing, are not followed.
        discriminator_ramp: the number of steps in which the adversarial term then rises to its weight; 0 for at once.
        terms: further ones, by name.
    """

    def __init__(
        self,
        pixel: ReconstructionTerm,
        perceptual: nn.Module | None,
        perceptual_weight: float,
        perceptual_frames: int | None,
        quantization_weight: float,
        adversarial: Game,
        balance: Balance,
        discriminator_start: int,
        discriminator_weight: float,
        discriminator_warmup: int,
        discriminator_ramp: int,
        terms: Mapping[str, Term],
    ) -> None:
        check(perceptual_weight >= 0, "perceptual_weight", perceptual_weight, "at least 0")
        few = perceptual_frames is None or perceptual_frames > 0
        check(few, "perceptual_frames", perceptual_frames, "positive or null")
        check(quantization_weight >= 0, "quantization_weight", quantization_weight, "at least 0")
        check(discriminator_start >= 0, "discriminator_start", discriminator_start, "at least 0")
        check(discriminator_weight >= 0, "discriminator_weight", discriminator_weight, "at least 0")
        check(discriminator_warmup >= 0, "discriminator_warmup", discriminator_warmup, "at least 0")
        check(discriminator_ramp >= 0, "discriminator_ramp", discriminator_ramp, "at least 0")
        for name, term in terms.items():
            check(isinstance(term, Term), f"terms.{name}", type(term).__name__, "a term of a loss")
        super().__init__()
        self.pixel, self.perceptual, self.adversarial, self.balance = pixel, perceptual, adversarial, balance
        self.perceptual_weight, self.quantization_weight = perceptual_weight, quantization_weight
        self.perceptual_frames = perceptual_frames
        self.discriminator_start, self.discriminator_weight = discriminator_start, discriminator_weight
        self.discriminator_warmup, self.discriminator_ramp = discriminator_warmup, discriminator_ramp
        self.chance = adversarial.chance
        self.largest_weight = None if balance.largest is None else balance.largest * discriminator_weight
        self.terms = nn.ModuleDict(terms)
        named = list(terms.items())
        self.reconstruction_terms = [(name, term) for name, term in named if isinstance(term, ReconstructionTerm)]
        self.feature_terms = [(name, term) for name, term in named if isinstance(term, FeatureTerm)]
        self.latent_terms = [(name, term) for name, term in named if isinstance(term, LatentTerm)]
        self.discriminator_terms = [(name, term) for name, term in named if isinstance(term, DiscriminatorTerm)]
        has_activations = isinstance(perceptual, Perceptual) or not self.feature_terms
        check(has_activations, "perceptual", type(perceptual).__name__, "a network with activations for loss.terms")

    def autoencoder_loss(
        self, frames: Frames, output: AutoencoderOutput, discriminator: nn.Module | None, last_layer: Tensor, step: int
    ) -> Loss:
        """The generator's side, see `Objective`.

        The gradients of nll and g are taken once each, at the reconstruction, and their sum goes back through the
        autoencoder once.
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
            balance = self.balance(output.reconstruction, gradient, g_gradient, last_layer)
            weight = balance * (self.discriminator_weight * self.ramp(step))
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

    def ramp(self, step: int) -> float:
        """The share of its weight that the adversarial term has in a step; in (0, 1]."""
        return (
            min(1.0, (step - self.adversarial_start + 1) / self.discriminator_ramp) if self.discriminator_ramp else 1.0
        )

    def _reconstruction_loss(
        self, frames: Frames, reconstruction: Frames, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        distance = self.pixel(frames, reconstruction, step)
        nll, metrics = self.pixel.weight * distance, {"train/pixel": distance.detach()}
        for name, weight, distance in self._perceptual_distances(frames, reconstruction, step):
            nll, metrics[f"train/{name}"] = nll + weight * distance, distance.detach()
        for name, term in self.reconstruction_terms:
            distance = term(frames, reconstruction, step)
            nll, metrics[f"train/{name}"] = nll + term.weight * distance, distance.detach()
        return nll, metrics

    def _perceptual_distances(
        self, frames: Frames, reconstruction: Frames, step: int
    ) -> Iterator[tuple[str, float, Tensor]]:
        """Name, weight and value of what looks through the perceptual network, which runs once on either side."""
        perceptual, weight = self.perceptual, self.perceptual_weight
        if perceptual is not None and self.perceptual_frames is not None and self.perceptual_frames < frames.shape[1]:
            # The step has seeded the generator, on this device: no number waits for another. All processes look at the
            # same frames, as one with the whole batch would.
            drawn = torch.randperm(frames.shape[1], device=frames.device)[: self.perceptual_frames]
            positions = broadcast_tensor(drawn)
            frames, reconstruction = frames.index_select(1, positions), reconstruction.index_select(1, positions)
        if not (self.feature_terms and isinstance(perceptual, Perceptual)):
            if perceptual is not None and weight > 0:
                yield "perceptual", weight, perceptual(reconstruction, frames).mean()
            return
        ours, theirs = list(perceptual.activations(reconstruction)), list(perceptual.activations(frames))
        if weight > 0:
            yield "perceptual", weight, perceptual.compare(ours, theirs).mean()
        for name, term in self.feature_terms:
            yield name, term.weight, term(theirs, ours, step)


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
