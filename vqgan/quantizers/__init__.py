"""The choices of `conf/model`: how latents become codes."""

from vqgan.quantizers.ema import EMAQuantizer
from vqgan.quantizers.quantizer import Quantized, Quantizer
from vqgan.quantizers.vector import VectorQuantizer

__all__ = ["EMAQuantizer", "Quantized", "Quantizer", "VectorQuantizer"]
