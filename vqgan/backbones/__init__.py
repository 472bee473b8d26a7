"""The choices of `conf/backbone`: encoder and decoder."""

from vqgan.backbones.backbone import Backbone

__all__ = ["Backbone"]
