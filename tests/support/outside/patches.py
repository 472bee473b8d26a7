from dataclasses import dataclass

from torch import Tensor, nn

from vqgan.backbones import Backbone, Decoder, Downsampling
from vqgan.frames import per_frame


@dataclass(frozen=True, kw_only=True)
class Patches(Backbone):
    """Patches of pixels through one matrix each way; other factors along the height than along the width."""

    resolution: int
    image_channels: int
    latent_channels: int
    height: int
    width: int

    @property
    def downsampling(self) -> Downsampling:
        return Downsampling(1, self.height, self.width)

    def encoder(self) -> nn.Module:
        return Flat(nn.Conv2d(3, self.latent_channels, (self.height, self.width), (self.height, self.width)))

    def decoder(self) -> Decoder:
        return Raised(nn.ConvTranspose2d(self.latent_channels, 3, (self.height, self.width), (self.height, self.width)))


class Flat(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, frames: Tensor) -> Tensor:
        return per_frame(self.layer, frames)


class Raised(Flat, Decoder):
    @property
    def last_layer(self) -> Tensor:
        return self.layer.weight
