"""VQGAN's loss: pixels, perception, codebook and an adversary with an adaptive weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vqgan.autoencoder import AutoencoderOutput
from vqgan.errors import check
from vqgan.runtime.collectives import mean_over_processes

Frames = Float[Tensor, "frames rgb height width"]


@dataclass
class Loss:
    """What one player minimises."""

    total: Float[Tensor, ""]
    metrics: dict[str, Tensor]  # detached scalars, logged under these names
    # What the discriminator said of the reconstruction, with its graph: its own loss need not ask again.
    logits: Float[Tensor, "frames 1 rows columns"] | None = None


class VQGANLoss(nn.Module):
    """The two players' losses (Esser et al. 2021, arXiv:2012.09841, equations 4 to 7).

    autoencoder:    nll + λ · discriminator_weight · g + quantization_weight · quantization_loss
        nll = mean pixel distance + perceptual_weight · mean LPIPS
        g   = -mean D(x̂)
        λ   = ‖∂nll/∂W‖ / (‖∂g/∂W‖ + 1e-4), at most max_adaptive_weight; W is the decoder's last layer
    discriminator:  hinge or vanilla, on frames and reconstruction

    Reference: `VQLPIPSWithDiscriminator` of taming-transformers' `losses/vqperceptual.py`. There the unused
    `pixelloss_weight` has no effect; here no such number exists.

    Args:
        pixel: `l1` or `l2`.
        perceptual_weight: at least 0; at 0 no perceptual network is needed or loaded.
        quantization_weight: at least 0; the `codebook_weight` of the reference.
        adversarial: the discriminator's loss, `hinge` or `vanilla`.
        discriminator_start: the number of steps without any adversarial term or discriminator update.
        discriminator_weight: at least 0; at 0 there is no discriminator.
        max_adaptive_weight: positive; the clamp of λ.
        perceptual: distance of frames, (frames, rgb, height, width) twice to (frames,); None with weight 0.
    """

    def __init__(
        self,
        pixel: Literal["l1", "l2"],
        perceptual_weight: float,
        quantization_weight: float,
        adversarial: Literal["hinge", "vanilla"],
        discriminator_start: int,
        discriminator_weight: float,
        max_adaptive_weight: float,
        perceptual: nn.Module | None,
    ) -> None:
        check(perceptual_weight >= 0, "perceptual_weight", perceptual_weight, "at least 0")
        check(quantization_weight >= 0, "quantization_weight", quantization_weight, "at least 0")
        check(discriminator_start >= 0, "discriminator_start", discriminator_start, "at least 0")
        check(discriminator_weight >= 0, "discriminator_weight", discriminator_weight, "at least 0")
        check(max_adaptive_weight > 0, "max_adaptive_weight", max_adaptive_weight, "positive")
        super().__init__()
        self.pixel, self.adversarial = pixel, adversarial
        self.perceptual_weight, self.quantization_weight = perceptual_weight, quantization_weight
        self.discriminator_start, self.discriminator_weight = discriminator_start, discriminator_weight
        self.max_adaptive_weight = max_adaptive_weight
        self.perceptual = perceptual

    def is_adversarial(self, step: int) -> bool:
        """Whether step `step` (counted from 0) has an adversarial term: one threshold for both players."""
        return self.discriminator_weight > 0 and step >= self.discriminator_start

    def autoencoder_loss(
        self, frames: Frames, output: AutoencoderOutput, discriminator: nn.Module | None, last_layer: Tensor, step: int
    ) -> Loss:
        """The generator's side.

        The gradients of nll and g are taken once each, at the reconstruction: λ needs only the way from there through
        the last layer, and their sum goes back through the autoencoder once. No gradient reaches the discriminator.

        Args:
            frames: in [-1, 1].
            output: of the autoencoder for these frames, with its graph.
            discriminator: None for no adversarial term.
            last_layer: the weight W of λ.
            step: counted from 0.
        """
        reconstruction = output.reconstruction.detach().requires_grad_()
        nll, metrics = self._reconstruction_loss(frames, reconstruction)
        (gradient,) = torch.autograd.grad(nll, reconstruction)
        total, logits = nll.detach(), None
        if discriminator is not None and self.is_adversarial(step):
            logits = discriminator(reconstruction)
            g = -logits.float().mean()
            (g_gradient,) = torch.autograd.grad(g, reconstruction, retain_graph=True)
            balance = self._adaptive_weight(output.reconstruction, gradient, g_gradient, last_layer)
            weight = balance * self.discriminator_weight
            gradient = gradient + weight * g_gradient
            total = total + weight * g.detach()
            metrics |= {"train/adversarial": g.detach(), "adversarial/weight": weight}
        total = _BackwardFrom.apply(output.reconstruction, total, gradient)
        total = total + self.quantization_weight * output.quantization_loss
        metrics |= {"train/quantization": output.quantization_loss.detach(), "train/total": total.detach()}
        return Loss(total, metrics, logits)

    def discriminator_loss(
        self,
        frames: Frames,
        reconstruction: Frames,
        discriminator: nn.Module,
        step: int,  # noqa: ARG002
        logits: Tensor | None = None,
    ) -> Loss:
        """The discriminator's side; no gradient reaches the autoencoder.

        Args:
            frames: in [-1, 1].
            reconstruction: of these frames.
            discriminator: with the weights that the autoencoder was judged by.
            step: counted from 0; for losses that change.
            logits: what the discriminator said of the reconstruction there, `Loss.logits`; None asks it again.
        """
        fake = (discriminator(reconstruction.detach()) if logits is None else logits).float()
        real = discriminator(frames).float()
        if self.adversarial == "hinge":
            total = 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())
        else:
            total = 0.5 * (F.softplus(-real).mean() + F.softplus(fake).mean())
        metrics = {
            "train/discriminator": total.detach(),
            "adversarial/logits_real": real.detach().mean(),
            "adversarial/logits_fake": fake.detach().mean(),
        }
        return Loss(total, metrics)

    def _reconstruction_loss(self, frames: Frames, reconstruction: Frames) -> tuple[Tensor, dict[str, Tensor]]:
        difference = frames - reconstruction
        nll = difference.abs().mean() if self.pixel == "l1" else difference.square().mean()
        metrics = {"train/pixel": nll.detach()}
        if self.perceptual is not None and self.perceptual_weight > 0:
            perceptual = self.perceptual(reconstruction, frames).mean()
            nll = nll + self.perceptual_weight * perceptual
            metrics["train/perceptual"] = perceptual.detach()
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
