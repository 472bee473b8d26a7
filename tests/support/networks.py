"""Small networks, built directly."""

from __future__ import annotations

from typing import Any

import torch

from vqgan.autoencoder import Autoencoder
from vqgan.backbones import Convolutional
from vqgan.losses import L1, Adaptive, Hinge, VQGANLoss
from vqgan.quantizers import EMAQuantizer, Quantizer, VectorQuantizer

BACKBONE: dict[str, Any] = {
    "resolution": 16, "image_channels": 3, "channels": 8, "channel_multipliers": [1, 2], "residual_blocks": 1,
    "attention_resolutions": [8], "norm_groups": 4, "dropout": 0.0, "latent_channels": 8,
}  # fmt: skip
LOSS: dict[str, Any] = {
    "perceptual_weight": 0.0, "perceptual_frames": None,
    "quantization_weight": 1.0, "discriminator_start": 0, "discriminator_weight": 0.8,
    "discriminator_warmup": 0, "discriminator_ramp": 0, "perceptual": None,
}  # fmt: skip


def ema_quantizer(codes: int = 16, **values: Any) -> EMAQuantizer:
    settings = {"commitment_weight": 0.25, "decay": 0.99, "eps": 1e-5, "start_from_data": False, "revive_after": None}
    return EMAQuantizer(codes, 4, **{**settings, **values})


def vector_quantizer(codes: int = 16, commitment_weight: float = 0.25, codebook_weight: float = 1.0) -> VectorQuantizer:
    return VectorQuantizer(codes, 4, commitment_weight, codebook_weight)


def autoencoder(quantizer: Quantizer | None = None, **values: Any) -> Autoencoder:
    torch.manual_seed(0)
    return Autoencoder(Convolutional(**{**BACKBONE, **values}), quantizer or vector_quantizer())


def loss(**values: Any) -> VQGANLoss:
    parts = {"pixel": L1(1.0), "adversarial": Hinge(), "balance": Adaptive(1e4), "terms": {}}
    return VQGANLoss(**{**LOSS, **parts, **values})


def frames(count: int = 2, side: int = 16) -> torch.Tensor:
    """Pictures; `frames()[:, None]` are clips of one frame."""
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1
