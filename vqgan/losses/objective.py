"""What every loss is: the two players' sides of one game, and the terms that they can be given."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from vqgan.autoencoder import AutoencoderOutput
from vqgan.errors import check
from vqgan.frames import Frames
from vqgan.quantizers import Quantized


@dataclass
class Loss:
    """What one player minimises."""

    total: Float[Tensor, ""]
    metrics: dict[str, Tensor]  # detached scalars, logged under these names
    # What the discriminator said of the reconstruction, with its graph: its own loss need not ask again.
    logits: Tensor | None = None


class Objective(nn.Module, ABC):
    """What both players minimise. It owns no network that is trained.

    What it remembers from step to step is in buffers: they are saved, and put back as they were when a step is skipped.

    Attributes:
        discriminator_weight: of the adversarial term; at 0 there is no discriminator.
        discriminator_start: the number of steps before the discriminator begins to learn.
        discriminator_warmup: the number of steps from there on in which it learns alone, without an adversarial term.
        perceptual: the distance of frames that validation measures too, (batch, time, rgb, height, width) twice to
            (batch, time); None for none.
        chance: the discriminator's loss where it tells nothing apart; None where that is not known.
        largest_weight: what the adversarial term's weight is clamped to; None where it is not.
    """

    discriminator_weight: float
    discriminator_start: int
    discriminator_warmup: int = 0

    def __init__(self) -> None:
        super().__init__()
        self.perceptual: nn.Module | None = None
        self.chance: float | None = None
        self.largest_weight: float | None = None

    @property
    def adversarial_start(self) -> int:
        """The number of steps before the adversarial term comes in."""
        return self.discriminator_start + self.discriminator_warmup

    def trains_discriminator(self, step: int) -> bool:
        """Whether the discriminator may learn in step `step` (counted from 0)."""
        return self.discriminator_weight > 0 and step >= self.discriminator_start

    def is_adversarial(self, step: int) -> bool:
        """Whether the autoencoder has an adversarial term in step `step` (counted from 0)."""
        return self.discriminator_weight > 0 and step >= self.adversarial_start

    @abstractmethod
    def autoencoder_loss(
        self, frames: Frames, output: AutoencoderOutput, discriminator: nn.Module | None, last_layer: Tensor, step: int
    ) -> Loss:
        """The generator's side; no gradient reaches the discriminator.

        Args:
            frames: in [-1, 1].
            output: of the autoencoder for these frames, with its graph.
            discriminator: None for no adversarial term.
            last_layer: the decoder's last weight, at which gradients can be compared.
            step: counted from 0.
        """

    @abstractmethod
    def discriminator_loss(
        self, frames: Frames, reconstruction: Frames, discriminator: nn.Module, step: int, logits: Tensor | None = None
    ) -> Loss:
        """The discriminator's side; no gradient reaches the autoencoder.

        Args:
            frames: in [-1, 1].
            reconstruction: of these frames.
            discriminator: with the weights that the autoencoder was judged by.
            step: counted from 0.
            logits: what the discriminator said of the reconstruction there, `Loss.logits`; None asks it again.
        """


class Term(nn.Module, ABC):
    """One more summand of a loss, under its own name in `loss.terms`, by which it is logged without its weight.

    Args:
        weight: at least 0.
    """

    def __init__(self, weight: float) -> None:
        check(weight >= 0, "weight", weight, "at least 0")
        super().__init__()
        self.weight = weight


class ReconstructionTerm(Term):
    """How far a reconstruction is from its frames; weighed against the adversary with the pixel distance."""

    @abstractmethod
    def forward(self, frames: Frames, reconstruction: Frames, step: int) -> Float[Tensor, ""]:
        """A mean over the frames of this batch."""


class FeatureTerm(Term):
    """How far the activations of the perceptual network are from the frames'; weighed as the perceptual distance is.

    They are computed once for the perceptual distance and all these terms, see `Perceptual.activations`.
    """

    @abstractmethod
    def forward(self, frames: Sequence[Tensor], reconstruction: Sequence[Tensor], step: int) -> Float[Tensor, ""]:
        """A mean over the frames of this batch."""


class LatentTerm(Term):
    """What is asked of latents and codes; beside the quantizer's own loss."""

    @abstractmethod
    def forward(self, quantized: Quantized, step: int) -> Float[Tensor, ""]:
        """A mean over the latents of this batch."""


@dataclass
class Judgement:
    """What the discriminator said of a batch, with its graph."""

    frames: Frames
    reconstruction: Frames  # without gradient
    real: Tensor  # logits of the frames, float32
    fake: Tensor  # logits of the reconstruction, float32


class DiscriminatorTerm(Term):
    """What keeps the discriminator in bounds."""

    @abstractmethod
    def forward(self, discriminator: nn.Module, judged: Judgement, step: int) -> Float[Tensor, ""]:
        """A mean over this batch."""
