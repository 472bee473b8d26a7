"""What every backbone is: it builds the encoder and the decoder around the quantizer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor, nn


class Downsampling(NamedTuple):
    """Frames and pixels to a code along each axis."""

    time: int
    height: int
    width: int


class Backbone(ABC):
    """Builds encoder and decoder; a dataclass of sizes, say.

    Attributes:
        resolution: nominal side of a frame in pixels. Other sides that are multiples of the downsampling run as well.
        image_channels: 3 for rgb.
        latent_channels: between encoder and quantizer; the autoencoder projects them to the quantizer's `latent_dim`.
    """

    resolution: int
    image_channels: int
    latent_channels: int

    @property
    @abstractmethod
    def downsampling(self) -> Downsampling:
        """Frames and pixels to a code."""

    @abstractmethod
    def encoder(self) -> nn.Module:
        """A network from `Frames` to `Latents` of `latent_channels`."""

    @abstractmethod
    def decoder(self) -> Decoder:
        """A network from `Latents` of `latent_channels` back to `Frames`, nominally in [-1, 1]."""


class Decoder(nn.Module, ABC):
    """A decoder, which says where the gradients of the loss's terms are to be compared."""

    @property
    @abstractmethod
    def last_layer(self) -> Tensor:
        """The weight of the last layer; `compile` leaves that layer out, since its gradient is asked for by itself."""
