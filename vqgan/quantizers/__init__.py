"""The choices of `conf/model`: how latents become codes."""

from vqgan.quantizers.ema import EMAQuantizer
from vqgan.quantizers.fsq import FiniteScalarQuantizer
from vqgan.quantizers.quantizer import Quantized, Quantizer
from vqgan.quantizers.usage import CodeUse
from vqgan.quantizers.vector import VectorQuantizer

__all__ = ["CodeUse", "EMAQuantizer", "FiniteScalarQuantizer", "Quantized", "Quantizer", "VectorQuantizer"]
