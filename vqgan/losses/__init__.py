"""The choices of `conf/loss`: what both players minimise."""

from vqgan.losses.lpips import LPIPS
from vqgan.losses.vqgan import Loss, VQGANLoss

__all__ = ["LPIPS", "Loss", "VQGANLoss"]
