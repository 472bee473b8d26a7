"""The loop of a tokenizer, with the names of its parts."""

from __future__ import annotations

from torch import nn

from vqgan.autoencoder import Autoencoder
from vqgan.data import Loader
from vqgan.losses import Objective
from vqgan.training.settings import Settings
from vqgan.training.step import Step
from vqgan.training.trainer import Trainer
from vqgan.training.validation import Validation


class TokenizerTrainer(Trainer):
    """Trains an autoencoder, and its discriminator where it has one."""

    settings: Settings
    step: Step
    loader: Loader

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
