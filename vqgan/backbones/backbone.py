"""What every backbone is: it builds the encoder and the decoder around the quantizer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vqgan.frames import per_frame


class Downsampling(NamedTuple):
    """Frames and pixels to a code along each axis."""

    time: int
    height: int
    width: int

    def times(self, frames: int) -> int:
        """How many times of codes so many frames have, 1 or more: 1 + ⌈(frames - 1) / time⌉; the first has its own."""
        return 1 - (1 - frames) // self.time

    def frames(self, times: int) -> int:
        """How many frames so many times of codes stand for, 1 or more: 1 + time · (times - 1)."""
        return 1 + self.time * (times - 1)


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
        """A network from `Frames` to `Latents` of `latent_channels`.

        Where several frames have a code, it takes 1 + k·n frames to 1 + n latents. If it is one that `Remembers`, as
        the decoder then is (`vqgan.backbones.temporal`), a video is one stream; if not, it takes whole clips alone.
        """

    @abstractmethod
    def decoder(self) -> Decoder:
        """A network from `Latents` of `latent_channels` back to `Frames`, nominally in [-1, 1]."""


class Decoder(nn.Module, ABC):
    """A decoder, which says where the gradients of the loss's terms are to be compared."""

    @property
    @abstractmethod
    def last_layer(self) -> Tensor:
        """The weight of the last layer; `compile` leaves that layer out, since its gradient is asked for by itself."""


class PictureDecoder(Decoder):
    """A decoder that works on each frame by itself: `features`, and then a last layer `conv_out`.

    All but that layer is compiled, since the adaptive weight needs its gradient by itself.
    """

    conv_out: nn.Conv2d
    compiled: Callable[[Tensor], Tensor] | None = None

    @property
    def last_layer(self) -> Tensor:
        """The weight at which the adaptive adversarial weight is measured."""
        return self.conv_out.weight

    def compile(self) -> None:
        """Compile the features."""
        self.compiled = torch.compile(self.features)

    def __getstate__(self) -> dict[str, Any]:
        # What is compiled has this decoder's weights: a copy, as the average of the weights, would go on using them.
        return {name: value for name, value in super().__getstate__().items() if name != "compiled"}

    def forward(
        self, latents: Float[Tensor, "batch time latent rows columns"]
    ) -> Float[Tensor, "batch time rgb height width"]:
        """Map latents to frames, nominally in [-1, 1]."""
        features = self.compiled or self.features
        return per_frame(lambda pictures: self.pixels(features(pictures)), latents)

    @abstractmethod
    def features(self, latents: Float[Tensor, "frames latent rows columns"]) -> Float[Tensor, "frames c h w"]:
        """All of a picture but the last layer."""

    def pixels(self, features: Float[Tensor, "frames c h w"]) -> Float[Tensor, "frames rgb height width"]:
        """The last layer."""
        return self.conv_out(features)
