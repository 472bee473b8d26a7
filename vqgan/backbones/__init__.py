"""The choices of `conf/backbone`: encoder and decoder."""

from vqgan.backbones.backbone import Backbone, Decoder, Downsampling
from vqgan.backbones.causal import Causal
from vqgan.backbones.convolutional import Convolutional
from vqgan.backbones.shortcut import Shortcut
from vqgan.backbones.temporal import Memory, Remembers

__all__ = ["Backbone", "Causal", "Convolutional", "Decoder", "Downsampling", "Memory", "Remembers", "Shortcut"]
