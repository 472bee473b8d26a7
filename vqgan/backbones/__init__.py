"""The choices of `conf/backbone`: encoder and decoder."""

from vqgan.backbones.backbone import Backbone, Decoder, Downsampling
from vqgan.backbones.convolutional import Convolutional
from vqgan.backbones.open_magvit2 import OpenMAGVIT2
from vqgan.backbones.shortcut import Shortcut
from vqgan.backbones.vidtok import VidTok

__all__ = ["Backbone", "Convolutional", "Decoder", "Downsampling", "OpenMAGVIT2", "Shortcut", "VidTok"]
