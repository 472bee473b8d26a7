"""The choices of `conf/backbone`: encoder and decoder."""

from vqgan.backbones.backbone import Backbone, Decoder, Downsampling
from vqgan.backbones.convolutional import Convolutional
from vqgan.backbones.shortcut import Shortcut

__all__ = ["Backbone", "Convolutional", "Decoder", "Downsampling", "Shortcut"]
