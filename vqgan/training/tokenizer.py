"""The loop of a tokenizer, with the names of its parts."""

from __future__ import annotations

import gc
from functools import cached_property

from torch import nn

from vqgan.autoencoder import Autoencoder
from vqgan.data import Loader
from vqgan.errors import StorageError
from vqgan.losses import Objective
from vqgan.runtime.device import in_use, out_of_memory, peak_of
from vqgan.training.room import expected_growth, what_helps
from vqgan.training.settings import Settings
from vqgan.training.step import Step
from vqgan.training.trainer import Trainer
from vqgan.training.validation import Validation


class TokenizerTrainer(Trainer):
    """Trains an autoencoder, and its discriminator where it has one."""

    settings: Settings
    step: Step
    loader: Loader

    def __post_init__(self) -> None:
        self.began_with = in_use(self.device)  # bytes, before the first step
        super().__post_init__()

    @property
    def autoencoder(self) -> Autoencoder:
        """What is trained."""
        return self.step.autoencoder.network

    @property
    def discriminator(self) -> nn.Module | None:
        """What it is trained against; None for a run that is never adversarial."""
        return None if self.step.discriminator is None else self.step.discriminator.network

    @property
    def loss(self) -> Objective:
        """What both minimise."""
        return self.step.loss

    @property
    def validation(self) -> Validation:
        """What is measured and shown."""
        assert isinstance(self.journal.validation, Validation)
        return self.journal.validation

    @cached_property
    def expected_peak(self) -> int | None:
        """Bytes that will be in use at the peak of a step, as `peak_of` measures them; None where that is not known."""
        every = self.settings.discriminator_every
        adversarial = -(-self.loss.adversarial_start // every) * every  # the first such step, which takes most
        number = adversarial if adversarial < self.settings.steps else 0
        _, frames, *picture = self.validation.clips.shape
        # Pictures of a causal network take more than a clip of as many frames: each has codes of its own.
        growths = [
            expected_growth(self.step, (length, *picture), self.loader.share * (frames // length), number)
            for length in self.step.lengths(frames)
        ]
        gc.collect()  # of circles of tensors without content, now and not in the middle of some step
        known = [growth for growth in growths if growth is not None]
        return self.began_with + max(known) if self.began_with and len(known) == len(growths) else None

    def out_of_memory(self) -> StorageError:
        """What to say where memory has run out in the middle of a run."""
        clips, values = self.validation.clips.shape, (self.loader.batch_size, self.settings.accumulate)
        helps = what_helps(peak_of(self.device), self.began_with, self.step, clips[1:], *values)
        return out_of_memory(self.device, clips, self.loader.share, helps)
