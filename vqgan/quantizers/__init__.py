"""The choices of `conf/model`: how latents become codes."""

from vqgan.quantizers.bsq import BinarySphericalQuantizer
from vqgan.quantizers.ema import EMAQuantizer
from vqgan.quantizers.fsq import FiniteScalarQuantizer
from vqgan.quantizers.lfq import LookupFreeQuantizer
from vqgan.quantizers.quantizer import Quantized, Quantizer
from vqgan.quantizers.usage import CodeUse
from vqgan.quantizers.vector import VectorQuantizer

__all__ = [
    "BinarySphericalQuantizer", "CodeUse", "EMAQuantizer", "FiniteScalarQuantizer", "LookupFreeQuantizer", "Quantized",
    "Quantizer", "VectorQuantizer",
]  # fmt: skip
