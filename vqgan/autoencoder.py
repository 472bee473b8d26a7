"""The tokenizer: encoder, quantizer and decoder in one module."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int, Integer
from torch import Tensor, nn

from vqgan.backbones import Backbone, Memory, Remembers
from vqgan.frames import Frames, Latents, per_frame
from vqgan.layers import Recomputes
from vqgan.quantizers import Quantized, Quantizer

FARTHEST = 2.0  # from 0, that frames nominally in [-1, 1] may be


@dataclass
class AutoencoderOutput:
    """What one forward pass gives."""

    reconstruction: Float[Tensor, "*clips rgb height width"]  # like the frames: nominally in [-1, 1]
    quantized: Quantized

    @property
    def indices(self) -> Int[Tensor, "*clips rows columns *depth"]:
        """The codes, in [0, codebook_size)."""
        return self.quantized.indices

    @property
    def quantization_loss(self) -> Float[Tensor, ""]:
        """What the quantizer itself minimises, its terms weighted against each other."""
        return self.quantized.loss

    @property
    def perplexity(self) -> Float[Tensor, ""]:
        """exp(entropy of code use) of this batch: in [1, codebook_size]."""
        return self.quantized.metrics["perplexity"]


class Autoencoder(nn.Module):
    """VQGAN's autoencoder: encoder → 1×1 convolution → quantizer → 1×1 convolution → decoder.

    It takes clips, (batch, time, rgb, height, width), and pictures, (n, rgb, height, width), as clips of one frame.
    Where k frames have a code, `downsampling.time`, clips of t frames have t' = 1 + ⌈(t - 1) / k⌉ times of codes: the
    last frame stands for those that the last time lacks, and these are cut off again.

    Reference: `VQModel` of taming-transformers' `models/vqgan.py` (Esser et al. 2021, arXiv:2012.09841).
    """

    def __init__(self, backbone: Backbone, quantizer: Quantizer) -> None:
        super().__init__()
        self.downsampling, self.resolution = backbone.downsampling, backbone.resolution
        self.image_channels = backbone.image_channels
        self.encoder = backbone.encoder()
        self.quant_conv = nn.Conv2d(backbone.latent_channels, quantizer.latent_dim, 1)
        self.quantizer = quantizer
        self.post_quant_conv = nn.Conv2d(quantizer.latent_dim, backbone.latent_channels, 1)
        self.decoder = backbone.decoder()

    @property
    def last_layer(self) -> Tensor:
        """The weight at which the gradients of the loss terms are balanced."""
        return self.decoder.last_layer

    def compile(self) -> None:
        """Compile encoder and decoder in place; names of parameters stay the same."""
        self.encoder.compile()
        self.decoder.compile()

    def recompute_activations(self) -> bool:
        """Let the backward pass compute activations a second time instead of having them kept; whether any part can."""
        parts = [module for module in self.modules() if isinstance(module, Recomputes)]
        for part in parts:
            part.recompute = True
        return bool(parts)

    def forward(self, frames: Float[Tensor, "*clips rgb height width"]) -> AutoencoderOutput:
        """Reconstruct frames in [-1, 1]; their sides must be multiples of the downsampling.

        Raises:
            ValueError: the frames have another shape or type.
        """
        if frames.ndim == 4:
            self._check(frames)
            output = self(frames[:, None])
            codes = replace(output.quantized, latents=output.quantized.latents[:, 0], indices=output.indices[:, 0])
            return AutoencoderOutput(output.reconstruction[:, 0], codes)
        quantized = self.quantize(frames)
        reconstruction = self.reconstruct(quantized.latents)
        return AutoencoderOutput(reconstruction[:, : frames.shape[1]], quantized)

    def quantize(self, frames: Frames, memory: Memory | None = None) -> Quantized:
        """Clips to codes, with everything that the quantizer measures; float32 from the latents on.

        Args:
            frames: of clips, or of one part of them after the other.
            memory: of the parts before, for this one and the next; None for whole clips.

        Raises:
            ValueError: the frames have another shape or type, or the clips have ended.
        """
        self._check(frames)
        latents = per_frame(self.quant_conv, self._in_time(self.encoder, self._filled(frames, memory), memory))
        with torch.autocast(latents.device.type, enabled=False):
            return self.quantizer(latents.float())

    def reconstruct(self, latents: Latents, memory: Memory | None = None) -> Frames:
        """What quantized latents stand for, nominally in [-1, 1]; with a memory as the part that follows."""
        before = per_frame(self.post_quant_conv, latents)
        if memory is not None:
            memory.taken += latents.shape[1]
        return self._in_time(self.decoder, before, memory).float()

    def encode(self, frames: Float[Tensor, "*clips rgb height width"]) -> Int[Tensor, "*clips2 rows columns *depth"]:
        """Frames in [-1, 1] to code indices in [0, codebook_size).

        Returns:
            Of pictures (n, rows, columns), of clips (batch, t', rows, columns); with a last dimension `depth` where
            the quantizer has several codes a position.

        Raises:
            ValueError: the frames have another shape, type or range.
        """
        _refuse_far(frames)
        self._check(frames)
        return self.quantize(frames).indices if frames.ndim == 5 else self.quantize(frames[:, None]).indices[:, 0]

    def decode(
        self, indices: Integer[Tensor, "*clips rows columns *depth"], frames: int | None = None
    ) -> Float[Tensor, "*clips2 rgb height width"]:
        """Code indices, of any integer type, as `encode` gives them, to frames, nominally in [-1, 1].

        Args:
            indices: of pictures or of clips.
            frames: that each clip had; None for as many as its codes can stand for.

        Raises:
            ValueError: they have another shape or type, one is not in [0, codebook_size), or they are not of clips of
                so many frames.
        """
        indices, clips = self._checked(indices)
        if not clips:
            indices = indices[:, None]
        most = self.downsampling.frames(indices.shape[1])
        frames = most if frames is None else frames
        if self.downsampling.times(frames) != indices.shape[1]:
            raise ValueError(f"Indices of {indices.shape[1]} times stand for up to {most} frames, not for {frames}.")
        found = self.reconstruct(self.quantizer.lookup(indices))[:, :frames]
        return found if clips else found[:, 0]

    def encode_next(self, frames: Frames, memory: Memory) -> Int[Tensor, "batch times rows columns *depth"]:
        """The codes of the next part of clips that are too long to be encoded at once.

        Args:
            frames: of the first part 1 + k·n, of those that follow k·n, k being `downsampling.time`; of the last one
                any number, at least 1.
            memory: an empty one for the first part, and the same for those that follow; see `Memory`.

        Raises:
            ValueError: as `encode`, or the part before was the last one.
        """
        _refuse_far(frames)
        return self.quantize(frames, memory).indices

    def decode_next(self, indices: Integer[Tensor, "batch times rows columns *depth"], memory: Memory) -> Frames:
        """The frames of the next part of clips' codes: of the first part 1 + k·(times - 1), then k·times.

        Args:
            indices: of any number of times.
            memory: an empty one for the first part, and the same for those that follow.

        Raises:
            ValueError: as `decode`.
        """
        indices, clips = self._checked(indices)
        if not clips:
            raise ValueError(f"Indices must be of clips, (batch, time, …), but are {tuple(indices.shape)}.")
        return self.reconstruct(self.quantizer.lookup(indices), memory)

    def _check(self, frames: Tensor) -> None:
        _, height, width = self.downsampling
        fits = frames.ndim in (4, 5) and frames.shape[-3] == self.image_channels and frames.is_floating_point()
        if not fits or frames.shape[-2] % height or frames.shape[-1] % width:
            sides = f"{height}" if height == width else f"{height} (height) and {width} (width)"
            raise ValueError(
                f"Frames must be (n, {self.image_channels}, height, width), or clips (batch, time, "
                f"{self.image_channels}, height, width), in [-1, 1] with sides that are multiples of {sides}, but are "
                f"{tuple(frames.shape)} of {frames.dtype}."
            )

    def _checked(self, indices: Tensor) -> tuple[Tensor, bool]:
        """Indices as long integers, and whether they are of clips."""
        size, depth = self.quantizer.codebook_size, self.quantizer.depth
        last = (depth,) if depth > 1 else ()
        fits = isinstance(indices, Tensor) and indices.ndim - len(last) in (3, 4) and not indices.is_floating_point()
        if not fits or tuple(indices.shape[indices.ndim - len(last) :]) != last:
            found = (
                f"{tuple(indices.shape)} of {indices.dtype}" if isinstance(indices, Tensor) else type(indices).__name__
            )
            ends = f", {depth})" if last else ")"
            raise ValueError(
                f"Indices must be a tensor of integers (n, rows, columns{ends}, or (batch, time, rows, columns{ends}, "
                f"but are {found}."
            )
        indices = indices.long()
        if indices.numel() and not 0 <= int(indices.min()) <= int(indices.max()) < size:
            raise ValueError(
                f"Indices must be in [0, {size}), but go from {int(indices.min())} to {int(indices.max())}."
            )
        return indices, indices.ndim - len(last) == 4

    def _filled(self, frames: Frames, memory: Memory | None) -> Float[Tensor, "batch time2 rgb height width"]:
        """Clips, or a part of them, whose last frame is repeated until the last time of codes is full."""
        step, before = self.downsampling.time, 0 if memory is None else memory.taken
        if before and (before - 1) % step:
            raise ValueError(f"The part before was the last one: {before} frames are not 1 + {step}·n.")
        after = before + frames.shape[1]
        if memory is not None:
            memory.taken = after
        missing = self.downsampling.frames(self.downsampling.times(after)) - after
        return torch.cat([frames, frames[:, -1:].expand(-1, missing, -1, -1, -1)], 1) if missing else frames

    def _in_time(self, network: nn.Module, values: Tensor, memory: Memory | None) -> Tensor:
        """What a network makes of clips; one of pictures needs no memory."""
        if isinstance(network, Remembers):
            return network(values, memory)
        if memory is not None and self.downsampling.time > 1:
            raise ValueError(f"{type(network).__name__} takes whole clips alone: it is none that `Remembers`.")
        return network(values)


def _refuse_far(frames: Tensor) -> None:
    largest = float(frames.detach().abs().max()) if frames.numel() else 0.0
    if largest > FARTHEST:
        raise ValueError(f"Frames must be in [-1, 1], but reach {largest:g}; of 0 to 255, take frames / 127.5 - 1.")


@contextmanager
def evaluating(autoencoder: Autoencoder) -> Iterator[None]:
    """An autoencoder in evaluation mode, where its quantizer counts no codes; afterwards it is as it was."""
    training = [module for module in autoencoder.modules() if module.training]
    autoencoder.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
