"""The algorithm: one step of both players."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from vqgan.autoencoder import Autoencoder
from vqgan.frames import Clips, Frames, to_frames
from vqgan.losses import Loss, Objective
from vqgan.runs.checkpoint import Stateful
from vqgan.runtime.collectives import mean_over_processes
from vqgan.runtime.device import on_device
from vqgan.runtime.process import ALONE, Process
from vqgan.training.algorithm import Algorithm
from vqgan.training.finite import Buffers
from vqgan.training.outcomes import Outcome
from vqgan.training.player import Player
from vqgan.training.settings import Settings

RANKS_APART = 2**26  # steps between the random numbers of one process and those of the next


@dataclass(kw_only=True, eq=False)
class Step(Algorithm):
    """One step of both players, on one forward pass each; without effect if it is not finite.

    Nothing here waits for the device: whether a step was finite is found out when its numbers are read.

    Args:
        settings: precision, and how often the discriminator steps.
        autoencoder: the player that makes reconstructions.
        discriminator: the one that tells them from frames; None for a run that is never adversarial.
        loss: both players' losses.
        device: of the networks.
        seed: of every random choice.
        process: which of several this is, each of which computes a share of every step.
    """

    settings: Settings
    autoencoder: Player[Autoencoder]
    discriminator: Player[nn.Module] | None
    loss: Objective
    device: torch.device
    seed: int
    process: Process = ALONE

    def __post_init__(self) -> None:
        self.players = [self.autoencoder]
        if self.discriminator is not None:
            self.players.append(self.discriminator)
        self.buffers = Buffers([*(player.network for player in self.players), self.loss])

    def __call__(self, number: int, clips: Sequence[Clips]) -> Outcome:
        """Compute one step.

        Args:
            number: of the step, counted from 0; together with the seed it decides every random choice.
            clips: one batch per micro-batch, of which this process has its share.

        Returns:
            Whether it counts, and detached scalars averaged over micro-batches and processes, all on the device.
        """
        # A run that goes on draws what it would have drawn. Masks of dropout differ between processes, as clips do;
        # what must be alike in all is drawn by the first.
        torch.manual_seed((self.seed << 32) + self.process.rank * RANKS_APART + number)
        self.buffers.remember()
        adversarial = self.is_adversarial(number)
        parts = []
        for batch in clips:
            frames = to_frames(cut(on_device(batch, self.device), self.length(number, batch.shape[1])))
            # Both players' gradients before either moves: the discriminator learns from the logits by which this very
            # reconstruction was judged, so that it runs once on it, as the autoencoder does on the frames.
            reconstruction, loss = self.autoencoder_gradients(number, frames, len(clips))
            parts.append(loss.metrics)
            if adversarial:
                parts[-1] |= self.discriminator_gradients(number, frames, len(clips), reconstruction, loss.logits)
        metrics = mean_of(parts)  # of all processes: each then decides alike
        # One question for the whole step: if either player's numbers are not finite, neither of them learns from it.
        numbers = [metrics["train/total"], self.autoencoder.finish()]
        if adversarial and self.discriminator is not None:
            numbers += [metrics["train/discriminator"], self.discriminator.finish()]
        finite = torch.stack(numbers).isfinite().all()
        self.update_autoencoder(number, finite)
        if adversarial:
            self.update_discriminator(number, finite)
        # Last, since the forward pass and both updates move buffers: statistics of norms, and codes that learn without
        # gradients.
        self.buffers.restore_unless(finite)
        self.autoencoder.average_weights(number, finite)
        return Outcome(number, finite, metrics)

    def sees_pictures(self, number: int) -> bool:
        """Whether a step sees the frames of its clips one by one, as clips of one frame."""
        return random.Random(f"pictures {self.seed} {number}").random() < self.settings.picture_share

    def length(self, number: int, frames: int) -> int:
        """Frames of the clips that a step sees, into which those of so many frames are cut."""
        if self.sees_pictures(number):
            return 1
        lengths = self.settings.clip_lengths
        return random.Random(f"lengths {self.seed} {number}").choice(lengths) if lengths else frames

    def lengths(self, frames: int) -> list[int]:
        """All lengths that `length` can give."""
        return sorted({*(self.settings.clip_lengths or [frames]), *([1] if self.settings.picture_share else [])})

    def frames(self, number: int, clips: Sequence[Clips]) -> int:
        """How many frames of some clips a step sees: a rest that makes no whole clip is left out."""
        length = self.length(number, clips[0].shape[1])
        return sum(len(batch) * (batch.shape[1] // length) * length for batch in clips)

    def is_adversarial(self, number: int) -> bool:
        """Whether the discriminator takes part in a step."""
        return self.loss.trains_discriminator(number) and number % self.settings.discriminator_every == 0

    def autoencoder_gradients(self, number: int, frames: Frames, parts: int) -> tuple[Frames, Loss]:
        """The generator's side of one of `parts` micro-batches; also returns the reconstruction, without its graph."""
        autoencoder = self.autoencoder.network
        discriminator = None if self.discriminator is None else self.discriminator.network
        with self.autocast():
            output = autoencoder(frames)
            loss = self.loss.autoencoder_loss(frames, output, discriminator, autoencoder.last_layer, number)
        (loss.total / parts).backward()  # added up over micro-batches: the gradient of their mean
        loss.metrics["train/total"] = loss.total.detach()
        loss.metrics |= {f"codebook/{name}": value.detach() for name, value in output.quantized.metrics.items()}
        return output.reconstruction.detach(), loss

    def discriminator_gradients(
        self, number: int, frames: Frames, parts: int, reconstruction: Frames, logits: Tensor | None
    ) -> dict[str, Tensor]:
        """The discriminator's side, on the reconstruction and the logits that the generator was judged by."""
        assert self.discriminator is not None
        network = self.discriminator.network
        with self.autocast():
            loss = self.loss.discriminator_loss(frames, reconstruction, network, number, logits=logits)
        # Into the discriminator alone: the logits' graph goes on to the autoencoder.
        (loss.total / parts).backward(inputs=[p for p in network.parameters() if p.requires_grad])
        return {"train/discriminator": loss.total.detach()} | loss.metrics

    def update_autoencoder(self, number: int, finite: Tensor) -> None:
        """Move the autoencoder's parameters by their gradients, and the codebook where it learns without."""
        self.autoencoder.update(number, finite)
        if self.autoencoder.network.quantizer.training:  # a frozen one is in evaluation mode
            self.autoencoder.network.quantizer.update()

    def update_discriminator(self, number: int, finite: Tensor) -> None:
        """Move the discriminator's parameters by their gradients."""
        assert self.discriminator is not None
        self.discriminator.update(number, finite)

    def undo(self) -> None:
        """Take back what a step that was broken off has changed before either player moved."""
        self.buffers.restore_unless(torch.tensor(False, device=self.device))

    def autocast(self) -> torch.autocast:
        """The precision of the networks."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16")

    def state(self) -> dict[str, Stateful]:
        """Both players', and the loss's where its terms remember something."""
        parts = self.autoencoder.state("autoencoder")
        if self.discriminator is not None:
            parts |= self.discriminator.state("discriminator")
        if self.loss.state_dict():
            parts["loss"] = self.loss
        return parts

    def row(self, done: int) -> dict[str, float]:
        """Which share of the codes is in use, and the learning rates."""
        quantizer = self.autoencoder.network.quantizer
        # A frozen quantizer counts no codes.
        usage = quantizer.usage(min(self.settings.usage_steps, done)) if quantizer.training else None
        row = {} if usage is None else {"codebook/usage": float(usage)}
        for name, player in zip(("autoencoder", "discriminator"), self.players):
            row[f"learning_rate/{name}"] = float(player.learning_rate(done - 1))
        return row


def cut(clips: Clips, length: int) -> UInt8[Tensor, "more shorter height width rgb"]:
    """Clips cut into as many of that length as they hold: about as many frames."""
    count = clips.shape[1] // length
    return clips[:, : count * length].unflatten(1, (count, length)).flatten(0, 1)


def mean_of(parts: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
    """The mean of each metric over micro-batches and processes, in one message."""
    means = torch.stack([torch.stack([part[name].float() for part in parts]).mean() for name in parts[0]])
    return dict(zip(parts[0], mean_over_processes(means)))
