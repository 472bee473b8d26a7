"""The choices of `conf/discriminator`: frames to logits, high for real."""

from vqgan.discriminators.patchgan import PatchGAN

__all__ = ["PatchGAN"]
