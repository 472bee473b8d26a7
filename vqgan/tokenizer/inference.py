"""A trained tokenizer at work: frames to codes and codes to frames, in the same batches with the same bits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from vqgan.autoencoder import Autoencoder
from vqgan.backbones import Memory
from vqgan.errors import ConfigError, check
from vqgan.frames import Frames, Indices, to_clips, to_frames
from vqgan.runtime.device import (
    ANOTHER_DEVICE,
    Precision,
    find_device,
    memory_at_work,
    memory_to_begin,
    on_device,
    prepare,
    running_in,
)
from vqgan.tokenizer.room import Room


@dataclass(frozen=True)
class InferenceSettings:
    """What results depend on beside the weights, in their last bits."""

    batch_frames: int  # that the network takes at once
    precision: Precision
    room: Room = field(default_factory=Room, init=False, compare=False, repr=False)


@dataclass(frozen=True)
class Parts:
    """How a video is cut into parts, which go through a network one after the other: always in the same places.

    Each is `batch_frames` long and gives as many times of codes, so the first one, whose first frame has codes of its
    own, is `step` - 1 frames shorter; the last one is what is left.
    """

    batch_frames: int  # a multiple of `step`
    step: int  # frames to a code

    def __post_init__(self) -> None:
        fits = self.batch_frames > 0 and self.batch_frames % self.step == 0
        check(fits, "batch_frames", self.batch_frames, f"a multiple of {self.step}, the tokenizer's frames to a code")

    @property
    def times(self) -> int:
        """How many times of codes a part has, where it is not the last one."""
        return self.batch_frames // self.step

    def firsts(self, count: int) -> Iterator[int]:
        """The first frame of each part of a video of so many frames."""
        return (max(0, first) for first in range(1 - self.step, count, self.batch_frames))

    def length(self, first: int) -> int:
        """How many frames the part that begins there has, where it is not the last one."""
        return self.batch_frames if first > 0 else self.batch_frames + 1 - self.step


def parts_for(tokenizer: Autoencoder, batch_frames: int) -> Parts:
    """How this tokenizer takes a video.

    Raises:
        ConfigError: so many frames have no whole number of codes.
    """
    return Parts(batch_frames, tokenizer.downsampling.time)


def move_to(tokenizer: Autoencoder, device: str) -> Autoencoder:
    """The tokenizer on its device, in evaluation mode."""
    found = find_device(device, "device")
    torch.backends.cudnn.deterministic = True  # the same codes each time
    with memory_to_begin(ANOTHER_DEVICE):
        prepare(tokenizer, found, channels_last=True)
    return tokenizer.eval()


def refuse_meaningless(values: Mapping[str, Any], keys: Sequence[str]) -> None:
    """Raise `ConfigError` for values that mean something to a command alone, not to a tokenizer in Python."""
    for key in keys:
        if key in values:
            what = (
                "it works where it is: move it by tokenizer.to(...)" if key == "device" else "that is for the command"
            )
            raise ConfigError(f"{key}={values[key]!r} means nothing to a tokenizer in Python; {what}.")


@torch.no_grad()
def encode_batch(
    tokenizer: Autoencoder, frames: UInt8[Tensor, "time height width rgb"], work: InferenceSettings, memory: Memory
) -> Int[Tensor, "times rows columns *depth"]:
    """The codes of one of a video's `Parts`, on the device; computed in smaller ones where memory runs out.

    Args:
        tokenizer: whose.
        frames: of the part.
        work: how it is computed.
        memory: of the parts before; it is changed to be that of the next one.

    Raises:
        StorageError: memory ran out.
    """
    device, step = tokenizer.last_layer.device, tokenizer.downsampling.time
    alone = 1 if memory.taken == 0 else step  # frames of the first time

    def encode(first: int, last: int) -> Tensor:
        some = frames[max(0, alone + step * (first - 1)) : alone + step * (last - 1)]
        # Not `encode_next`, which would wait for the device to look at values that cannot be out of range.
        return tokenizer.quantize(to_frames(on_device(some[None], device)), memory).indices[0]

    with memory_at_work(device, frames.shape), running_in(work.precision, device):
        return torch.cat(work.room.in_turn(1 - (alone - len(frames)) // step, memory, encode))


@torch.no_grad()
def decode_batch(
    tokenizer: Autoencoder, codes: Int[Tensor, "times rows columns *depth"], work: InferenceSettings, memory: Memory
) -> UInt8[Tensor, "time height width rgb"]:
    """The frames that the codes of one of a video's `Parts` stand for, on the CPU; for arguments see `encode_batch`.

    Raises:
        StorageError: memory ran out.
        ValueError: a code is not in the codebook.
    """
    device = tokenizer.last_layer.device

    def decode(first: int, last: int) -> Tensor:
        return to_clips(tokenizer.decode_next(codes[None, first:last].to(device), memory))[0].cpu()

    with memory_at_work(device, codes.shape), running_in(work.precision, device):
        return torch.cat(work.room.in_turn(len(codes), memory, decode))


def reconstruct_in_parts(tokenizer: Autoencoder, frames: Frames, batch_frames: int) -> tuple[Frames, Indices]:
    """What a tokenizer makes of clips, and its codes, part by part as a video is encoded: in bounded memory."""
    step, seen, told = tokenizer.downsampling.time, Memory(), Memory()
    parts = Parts(max(1, batch_frames // step) * step, step)
    made, codes = [], []
    for first in parts.firsts(frames.shape[1]):
        quantized = tokenizer.quantize(frames[:, first : first + parts.length(first)], seen)
        made.append(tokenizer.reconstruct(quantized.latents, told))
        codes.append(quantized.indices)
    return torch.cat(made, 1)[:, : frames.shape[1]], torch.cat(codes, 1)
