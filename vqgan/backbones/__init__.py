"""The choices of `conf/backbone`: encoder and decoder."""

from vqgan.backbones.backbone import Backbone, Decoder, Downsampling
from vqgan.backbones.convolutional import Convolutional

__all__ = ["Backbone", "Convolutional", "Decoder", "Downsampling"]
