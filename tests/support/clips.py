"""A small tokenizer of clips, and what causality means for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vqgan.autoencoder import Autoencoder
from vqgan.backbones import Causal
from vqgan.backbones.temporal import Temporal
from vqgan.quantizers import Quantizer, VectorQuantizer
from vqgan.tokenizer.folder import description_of, write
from vqgan.tokenizer.tokenizer import Tokenizer

CAUSAL: dict[str, Any] = {
    "resolution": 16, "image_channels": 3, "channels": 8, "channel_multipliers": [1, 1, 2, 2], "residual_blocks": 1,
    "attention_resolutions": [4], "norm_groups": 4, "dropout": 0.0, "latent_channels": 8,
    "temporal_downsampling": 4, "temporal_resolutions": [8, 2],
}  # fmt: skip


def stirred(network: nn.Module, scale: float = 0.2) -> None:
    """Give what works along time, which starts as nothing, something to do."""
    generator = torch.Generator().manual_seed(7)
    for part in network.modules():
        if isinstance(part, Temporal):
            for name, parameter in part.named_parameters():
                if "conv" in name:
                    parameter.data.normal_(0, scale, generator=generator)


def clip_tokenizer(quantizer: Quantizer | None = None, stir: bool = True, **values: Any) -> Autoencoder:
    torch.manual_seed(0)
    network = Autoencoder(Causal(**{**CAUSAL, **values}), quantizer or VectorQuantizer(64, 4, 0.25, 1.0))
    if quantizer is None:
        network.quantizer.codebook.data.normal_()
    if stir:
        stirred(network)
    return network


def clips(times: int, batch: int = 1, side: int = 16, seed: int = 3, dtype: torch.dtype = torch.float32) -> Tensor:
    values = torch.rand(batch, times, 3, side, side, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return values * 2 - 1


def sees_the_future(function: Callable[[Tensor], Tensor], x: Tensor, last: int, unaffected: int) -> bool:
    """Whether the first `unaffected` times of what a function gives depend on what comes after time `last`."""
    changed = torch.cat([x[:, : last + 1], -x[:, last + 1 :].flip(1)], 1)
    asked = x.clone().requires_grad_()
    found = function(asked)[:, :unaffected]
    (gradient,) = torch.autograd.grad(found.square().sum(), asked)
    same = torch.equal(found, function(changed)[:, :unaffected])
    return not same or bool(gradient[:, last + 1 :].any())


def clip_folder(folder: Path, **values: Any) -> Tokenizer:
    """A tokenizer of clips with random weights, as a folder and in memory."""
    torch.manual_seed(0)
    sizes = {**CAUSAL, **values}
    table: dict[str, Any] = {"codebook_size": 300, "latent_dim": 4, "commitment_weight": 0.25, "codebook_weight": 1.0}
    description = description_of({"class": "Causal", **sizes}, {"class": "VectorQuantizer", **table})
    tokenizer = Tokenizer(Causal(**sizes), VectorQuantizer(**table), description).eval().requires_grad_(False)
    stirred(tokenizer)
    with torch.no_grad():
        tokenizer.quantizer.codebook.normal_()
    write(folder, description, tokenizer.state_dict(), None, "")
    return tokenizer
