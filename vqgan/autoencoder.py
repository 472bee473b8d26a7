"""The tokenizer: encoder, quantizer and decoder in one module."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Integer
from torch import Tensor, nn

from vqgan.backbones.backbone import Backbone
from vqgan.backbones.blocks import Level
from vqgan.backbones.decoder import Decoder
from vqgan.backbones.encoder import Encoder
from vqgan.quantizers import Quantized, Quantizer

FARTHEST = 2.0  # from 0, that frames nominally in [-1, 1] may be


@dataclass
class AutoencoderOutput:
    """What one forward pass gives."""

    reconstruction: Float[Tensor, "frames rgb height width"]  # nominally in [-1, 1]
    quantization_loss: Float[Tensor, ""]  # commitment and codebook terms, already weighted against each other
    perplexity: Float[Tensor, ""]  # exp(entropy of code use) of this batch: in [1, codebook_size]
    indices: Int[Tensor, "frames rows columns"]  # in [0, codebook_size)


class Autoencoder(nn.Module):
    """VQGAN's autoencoder: encoder → 1×1 convolution → quantizer → 1×1 convolution → decoder.

    Reference: `VQModel` of taming-transformers' `models/vqgan.py` (Esser et al. 2021, arXiv:2012.09841).
    """

    def __init__(self, backbone: Backbone, quantizer: Quantizer) -> None:
        super().__init__()
        self.downsampling, self.resolution = backbone.downsampling, backbone.resolution
        self.encoder = Encoder(backbone)
        self.quant_conv = nn.Conv2d(backbone.latent_channels, backbone.latent_dim, 1)
        self.quantizer = quantizer
        self.post_quant_conv = nn.Conv2d(backbone.latent_dim, backbone.latent_channels, 1)
        self.decoder = Decoder(backbone)

    @property
    def last_layer(self) -> Tensor:
        """The weight at which the gradients of the loss terms are balanced."""
        return self.decoder.conv_out.weight

    def compile(self) -> None:
        """Compile encoder and decoder in place; names of parameters stay the same."""
        self.encoder.compile()
        self.decoder.compile()

    def checkpoint_activations(self, wanted: bool) -> None:
        """Whether the backward pass computes activations a second time instead of having them kept."""
        for module in self.modules():
            if isinstance(module, Level):
                module.recompute = wanted

    def forward(self, frames: Float[Tensor, "frames rgb height width"]) -> AutoencoderOutput:
        """Reconstruct frames in [-1, 1]; their sides must be multiples of the backbone's downsampling."""
        quantized = self.quantize(frames)
        reconstruction = self.decoder(self.post_quant_conv(quantized.latents))
        return AutoencoderOutput(reconstruction.float(), quantized.loss, quantized.perplexity, quantized.indices)

    def quantize(self, frames: Float[Tensor, "frames rgb height width"]) -> Quantized:
        """Frames to codes, with everything that the quantizer measures; float32 from the latents on.

        Raises:
            ValueError: the frames have another shape or type.
        """
        fits = frames.ndim == 4 and not any(side % self.downsampling for side in frames.shape[2:])
        if not fits or not frames.is_floating_point():
            raise ValueError(
                f"Frames must be (frames, rgb, height, width) in [-1, 1] with sides that are multiples of "
                f"{self.downsampling}, but are {tuple(frames.shape)} of {frames.dtype}."
            )
        latents = self.quant_conv(self.encoder(frames))
        with torch.autocast(latents.device.type, enabled=False):
            return self.quantizer(latents.float())

    def encode(self, frames: Float[Tensor, "frames rgb height width"]) -> Int[Tensor, "frames rows columns"]:
        """Frames in [-1, 1] to code indices in [0, codebook_size).

        Raises:
            ValueError: the frames have another shape, type or range.
        """
        largest = float(frames.detach().abs().max()) if frames.numel() else 0.0
        if largest > FARTHEST:
            raise ValueError(f"Frames must be in [-1, 1], but reach {largest:g}; of 0 to 255, take frames / 127.5 - 1.")
        return self.quantize(frames).indices

    def decode(self, indices: Integer[Tensor, "frames rows columns"]) -> Float[Tensor, "frames rgb height width"]:
        """Code indices, of any integer type, to frames, nominally in [-1, 1].

        Raises:
            ValueError: they have another shape or type, or one is not in [0, codebook_size).
        """
        size = self.quantizer.codebook_size
        if not isinstance(indices, Tensor) or indices.ndim != 3 or indices.is_floating_point():
            found = f"{tuple(indices.shape)} of {indices.dtype}"
            raise ValueError(f"Indices must be a tensor of integers (frames, rows, columns), but are {found}.")
        indices = indices.long()
        if indices.numel() and not 0 <= int(indices.min()) <= int(indices.max()) < size:
            raise ValueError(
                f"Indices must be in [0, {size}), but go from {int(indices.min())} to {int(indices.max())}."
            )
        return self.decoder(self.post_quant_conv(self.quantizer.lookup(indices))).float()
