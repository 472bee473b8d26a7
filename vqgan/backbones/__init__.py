"""The choices of `conf/backbone`: encoder and decoder."""

from vqgan.backbones.backbone import Backbone, Decoder, Downsampling
from vqgan.backbones.causal import Causal
from vqgan.backbones.causal_shortcut import CausalShortcut
from vqgan.backbones.convolutional import Convolutional
from vqgan.backbones.open_magvit2 import OpenMAGVIT2
from vqgan.backbones.shortcut import Shortcut
from vqgan.backbones.temporal import Memory, Remembers
from vqgan.backbones.vidtok import VidTok

__all__ = [
    "Backbone",
    "Causal",
    "CausalShortcut",
    "Convolutional",
    "Decoder",
    "Downsampling",
    "Memory",
    "OpenMAGVIT2",
    "Remembers",
    "Shortcut",
    "VidTok",
]
