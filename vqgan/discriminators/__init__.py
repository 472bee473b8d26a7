"""The choices of `conf/discriminator`: frames to logits, high for real."""

from vqgan.discriminators.blur import BlurPatchGAN
from vqgan.discriminators.dino import DINO
from vqgan.discriminators.patchgan import PatchGAN
from vqgan.discriminators.patchgan_3d import PatchGAN3D

__all__ = ["DINO", "BlurPatchGAN", "PatchGAN", "PatchGAN3D"]
