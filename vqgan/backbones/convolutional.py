"""The backbone of VQGAN, which works on each frame by itself."""

from __future__ import annotations

from torch import nn

from vqgan.backbones.backbone import Backbone, Decoder
from vqgan.backbones.decoder import ConvolutionalDecoder
from vqgan.backbones.encoder import ConvolutionalEncoder
from vqgan.backbones.sizes import Sizes


class Convolutional(Sizes, Backbone):
    """Encoder and decoder of taming-transformers (Esser et al. 2021, arXiv:2012.09841), frame by frame; see `Sizes`."""

    def encoder(self) -> nn.Module:
        """Frames to latents."""
        return ConvolutionalEncoder(self)

    def decoder(self) -> Decoder:
        """Latents back to frames."""
        return ConvolutionalDecoder(self)
