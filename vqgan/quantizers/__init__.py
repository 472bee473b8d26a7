"""The choices of `conf/model`: how latents become codes."""

from vqgan.quantizers.bsq import BinarySphericalQuantizer
from vqgan.quantizers.cosine import CosineQuantizer
from vqgan.quantizers.cosine_ema import CosineEMAQuantizer
from vqgan.quantizers.ema import EMAQuantizer
from vqgan.quantizers.fsq import FiniteScalarQuantizer
from vqgan.quantizers.ibq import IndexPropagationQuantizer
from vqgan.quantizers.lfq import LookupFreeQuantizer
from vqgan.quantizers.product import ProductQuantizer
from vqgan.quantizers.quantizer import Quantized, Quantizer
from vqgan.quantizers.residual import ResidualQuantizer
from vqgan.quantizers.revived import RevivedQuantizer
from vqgan.quantizers.simvq import ProjectedQuantizer
from vqgan.quantizers.usage import CodeUse
from vqgan.quantizers.vector import VectorQuantizer
from vqgan.quantizers.wasserstein import WassersteinQuantizer

__all__ = [
    "BinarySphericalQuantizer", "CodeUse", "CosineEMAQuantizer", "CosineQuantizer", "EMAQuantizer",
    "FiniteScalarQuantizer", "IndexPropagationQuantizer", "LookupFreeQuantizer", "ProductQuantizer",
    "ProjectedQuantizer", "Quantized", "Quantizer", "ResidualQuantizer", "RevivedQuantizer", "VectorQuantizer",
    "WassersteinQuantizer",
]  # fmt: skip
