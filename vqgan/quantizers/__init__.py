"""The choices of `conf/model`: how latents become codes."""

from vqgan.quantizers.ema import EMAQuantizer
from vqgan.quantizers.quantizer import Quantized, Quantizer
from vqgan.quantizers.usage import CodeUse
from vqgan.quantizers.vector import VectorQuantizer

__all__ = ["CodeUse", "EMAQuantizer", "Quantized", "Quantizer", "VectorQuantizer"]
